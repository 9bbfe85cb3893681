/** Files of a container, as long as its state and its sandbox's allow it: looked at anew before every call. */
import type { AgentCaller } from "../agent-client/index.ts";
import { checkContainerOperation } from "../base/index.ts";
import { ContainerFiles, type Files, guestFileCalls, stateOf } from "../container/index.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";

export function containerFiles(managed: ManagedSandbox, containerId: string): Files {
  const { sandbox } = managed;
  const agent: AgentCaller = {
    call: (method, request, options) =>
      managed.awake(async () => {
        const { state } = stateOf(sandbox, containerId);
        checkContainerOperation("files", state, sandbox.state.state, containerId);
        return await sandbox.call(method, request, options);
      }, options?.signal),
  };
  return new ContainerFiles(guestFileCalls(agent, containerId));
}
