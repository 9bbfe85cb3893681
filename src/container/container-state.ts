/** How a container's part of the state is found and changed. */
import { BelljarError, transition } from "../base/index.ts";
import type { ContainerState, HostSandbox } from "./state.ts";

/** @throws BelljarError `CONTAINER_NOT_FOUND` */
export function stateOf(sandbox: HostSandbox, id: string): ContainerState {
  const found = sandbox.state.containers.find((container) => container.id === id);
  if (found !== undefined) return found;
  throw new BelljarError("CONTAINER_NOT_FOUND", `sandbox ${sandbox.id} has no container ${id}`);
}

/** The state of a container that runs no more; the first cause is kept. */
export function stoppedState(state: ContainerState, error: BelljarError | undefined, atMs: number): ContainerState {
  const { pid: _, ...rest } = state;
  const end = error === undefined ? state.end : (state.end ?? { reason: error.reason, message: error.message, atMs });
  return {
    ...rest,
    state: state.state === "stopped" ? "stopped" : transition("container", state.state, "stopped", state.id),
    pending: undefined,
    frozen: false,
    end,
  };
}

export async function forget(sandbox: HostSandbox, id: string): Promise<void> {
  await sandbox.update((state) => ({
    ...state,
    containers: state.containers.filter((container) => container.id !== id),
  }));
}

/** Changes one container of the state, and nothing when `change` answers what it got. */
export async function changeContainer(
  sandbox: HostSandbox,
  id: string,
  change: (state: ContainerState) => ContainerState,
  options: { readonly force?: boolean | undefined } = {},
): Promise<void> {
  await sandbox.update((state) => {
    const containers = state.containers.map((each) => (each.id === id ? change(each) : each));
    return containers.every((each, index) => each === state.containers[index]) ? state : { ...state, containers };
  }, options);
}
