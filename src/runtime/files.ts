/** Files of a container, as long as its state and its sandbox's allow it: looked at anew before every call. */
import type { AgentCaller } from "../agent-client/index.ts";
import { checkContainerOperation } from "../base/index.ts";
import { ContainerFiles, type Files, guestFileCalls, type HostSandbox, stateOf } from "../container/index.ts";

export function containerFiles(sandbox: HostSandbox, containerId: string): Files {
  const agent: AgentCaller = {
    call: async (method, request, options) => {
      const { state } = stateOf(sandbox, containerId);
      checkContainerOperation("files", state, sandbox.state.state, containerId);
      return await sandbox.call(method, request, options);
    },
  };
  return new ContainerFiles(guestFileCalls(agent, containerId));
}
