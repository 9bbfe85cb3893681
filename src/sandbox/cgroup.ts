/** The host's control group for a sandbox's VMM. A VM can do without one. */
import { isDeepStrictEqual } from "node:util";
import { type Log, messageChain } from "../base/index.ts";
import type { HostCgroups } from "../resources/index.ts";

interface GroupedState {
  readonly cgroups?: readonly string[] | undefined;
}

export interface GroupedSandbox {
  readonly id: string;
  readonly state: GroupedState;
  readonly log: Log;
  update(change: <S extends GroupedState>(state: S) => S): Promise<void>;
}

/** In the state before it is there; a new sandbox's may say so already. */
export async function makeCgroup(sandbox: GroupedSandbox, cgroups: HostCgroups): Promise<readonly string[]> {
  const dirs = await cgroups.plan(sandbox.id);
  if (dirs.length === 0) return [];
  if (!isDeepStrictEqual(dirs, sandbox.state.cgroups)) await sandbox.update((state) => ({ ...state, cgroups: dirs }));
  try {
    await cgroups.create(dirs);
    return dirs;
  } catch (error) {
    sandbox.log.warn("the VM has no control group on the host", { cause: messageChain(error).join(": ") });
    await sandbox.update((state) => ({ ...state, cgroups: undefined }));
    return [];
  }
}
