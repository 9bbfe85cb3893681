/** The moves of a sandbox as a whole: pure functions of its state, its containers' included. */
import { type BelljarError, type ShownState, transition } from "../base/index.ts";
import { type ContainerState, stoppedState } from "../container/index.ts";
import type { SandboxState } from "../sandbox/index.ts";

type State = SandboxState<ContainerState>;

/** Its CPUs stand still, and with them what ran. */
export function paused(state: State): State {
  return {
    ...state,
    state: transition("sandbox", state.state, "paused", state.id),
    containers: state.containers.map((each) => (each.state === "running" ? { ...each, state: "paused" } : each)),
  };
}

/** What was frozen by itself stays so. */
export function resumed(state: State): State {
  return {
    ...state,
    state: transition("sandbox", state.state, "running", state.id),
    containers: state.containers.map((each) =>
      each.state === "paused" && !each.frozen ? { ...each, state: "running" } : each,
    ),
  };
}

/**
 * Nothing runs any more; the first cause is kept.
 * @param containersError why containers were ended that ran, or would have
 */
export function stopped(
  state: State,
  error: BelljarError | undefined,
  atMs: number,
  containersError: BelljarError | undefined = error,
): State {
  const end = error === undefined ? state.end : (state.end ?? { reason: error.reason, message: error.message, atMs });
  return {
    ...state,
    state: state.state === "stopped" ? "stopped" : transition("sandbox", state.state, "stopped", state.id),
    pending: undefined,
    cgroups: undefined,
    network: undefined,
    vm: undefined,
    hibernation: undefined,
    agentInstance: undefined,
    returning: undefined,
    end,
    containers: state.containers.map((each) => ({
      ...stoppedState(each, each.state === "stopped" ? undefined : containersError, atMs),
      inGuest: false,
      processes: [],
    })),
  };
}

/** Whatever it was, it goes on from elsewhere. */
export function standing(state: State): State {
  return state.state === "running" ? paused(state) : { ...state, state: "paused" };
}

/** It has no VM, and stands still until it wakes. */
export function asleep(state: State): State {
  return {
    ...standing(state),
    vm: undefined,
    agentInstance: undefined,
    returning: undefined,
    network: undefined,
    cgroups: undefined,
    workloadFrozen: undefined,
    pending: undefined,
  };
}

/** What is told of its state. */
export function shownState({ state, hibernation }: Pick<State, "state" | "hibernation">): ShownState {
  return hibernation !== undefined && state === "paused" ? "hibernated" : state;
}
