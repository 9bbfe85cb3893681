/**
 * The state machine of sandboxes and containers, and which operation which state allows: data and pure functions, the only
 * place that knows them. Both kinds move through the same states; whether something is being done just now
 * (`pending`) is not a state.
 *
 *   ready -> running | stopped      running -> paused | stopped      paused -> running | stopped      stopped -> running
 */
import { BelljarError } from "./errors.ts";

export const lifecycleStates = ["ready", "running", "paused", "stopped"] as const;
export type LifecycleState = (typeof lifecycleStates)[number];
/** What is told of a sandbox besides: a hibernated one stands still as a paused one does, and has no VM. */
export const shownStates = [...lifecycleStates, "hibernated"] as const;
export type ShownState = (typeof shownStates)[number];
export type LifecycleKind = "sandbox" | "container";

/** Why something ended; the first cause seen is kept. */
export interface EndCause {
  /** Of the closed list of errors. */
  readonly reason: string;
  readonly message: string;
  readonly atMs: number;
}

const moves: { readonly [from in LifecycleState]: readonly LifecycleState[] } = {
  ready: ["running", "stopped"],
  running: ["paused", "stopped"],
  paused: ["running", "stopped"],
  stopped: ["running"],
};

const sandboxGuards = {
  start: ["ready", "stopped"],
  /** Stopping what is stopped is success and does nothing. */
  stop: lifecycleStates,
  pause: ["running"],
  resume: ["paused"],
  delete: ["ready", "paused", "stopped"],
  /** Drops this process's handles; the VM goes on. */
  release: lifecycleStates,
  monitor: ["running"],
  /** Also the beginning of a fork. */
  checkpoint: ["running", "paused"],
  hibernate: ["running"],
  /** Back in place, to where a checkpoint was taken: whatever has become of it since. */
  rewind: ["running", "paused", "stopped"],
  createContainer: ["ready", "running"],
  addDevice: ["ready", "running"],
  /** Of a stopped one it is only forgotten: without its source the next VM could not start. */
  removeDevice: ["ready", "running", "stopped"],
  network: ["ready", "running"],
  stats: ["running"],
  /** A paused guest can neither take nor give. */
  resize: ["ready", "running", "stopped"],
} as const satisfies Readonly<Record<string, readonly LifecycleState[]>>;

interface ContainerGuard {
  readonly container: readonly LifecycleState[];
  /** What its sandbox must be; most need an agent that answers. */
  readonly sandbox: readonly LifecycleState[];
}

const containerGuards = {
  start: { container: ["ready", "stopped"], sandbox: ["running"] },
  /** With its sandbox stopped there is only the host's part to do; in a paused one nothing can be ended, nor unmounted. */
  stop: { container: lifecycleStates, sandbox: ["ready", "running", "stopped"] },
  pause: { container: ["running"], sandbox: ["running"] },
  resume: { container: ["paused"], sandbox: ["running"] },
  delete: { container: ["ready", "stopped"], sandbox: ["ready", "running", "stopped"] },
  exec: { container: ["ready", "running"], sandbox: ["running"] },
  signal: { container: ["ready", "running", "paused"], sandbox: ["ready", "running"] },
  resize: { container: ["ready", "running"], sandbox: ["running"] },
  writeInput: { container: ["ready", "running"], sandbox: ["running"] },
  /** Output and exit statuses are kept, so they can be asked for at any time. */
  readOutput: { container: lifecycleStates, sandbox: lifecycleStates },
  wait: { container: lifecycleStates, sandbox: lifecycleStates },
  update: { container: ["ready", "running"], sandbox: ["running"] },
  stats: { container: ["ready", "running", "paused"], sandbox: ["running"] },
  /** Those of one that was never started are there too: it is in the guest. */
  files: { container: ["ready", "running"], sandbox: ["ready", "running"] },
} as const satisfies Readonly<Record<string, ContainerGuard>>;

export type SandboxOperation = keyof typeof sandboxGuards;
export type ContainerOperation = keyof typeof containerGuards;

/** For whoever lists or tests them. */
export const lifecycleOperations = {
  sandbox: Object.freeze(Object.keys(sandboxGuards)) as readonly SandboxOperation[],
  container: Object.freeze(Object.keys(containerGuards)) as readonly ContainerOperation[],
} as const;

export function allowedMoves(from: LifecycleState): readonly LifecycleState[] {
  return moves[from];
}

/**
 * The state after the move. Staying is not a move.
 * @throws BelljarError `INVALID_TRANSITION`
 */
export function transition(kind: LifecycleKind, from: LifecycleState, to: LifecycleState, id?: string): LifecycleState {
  if (moves[from].includes(to)) return to;
  const allowed = moves[from];
  throw new BelljarError(
    "INVALID_TRANSITION",
    `${named(kind, id)} is ${from} and cannot become ${to}; it can become ${listed(allowed)}`,
    { facts: { kind, ...(id === undefined ? {} : { id }), from, to, allowed } },
  );
}

/** @throws BelljarError `INVALID_TRANSITION` when a sandbox in this state does not allow the operation */
export function checkSandboxOperation(operation: SandboxOperation, state: LifecycleState, id?: string): void {
  check("sandbox", operation, "sandbox", sandboxGuards[operation], state, id);
}

/** @throws BelljarError `INVALID_TRANSITION` when the container, or its sandbox, does not allow the operation */
export function checkContainerOperation(
  operation: ContainerOperation,
  state: LifecycleState,
  sandboxState: LifecycleState,
  id?: string,
): void {
  const guard: ContainerGuard = containerGuards[operation];
  check("container", operation, "container", guard.container, state, id);
  check("container", operation, "sandbox", guard.sandbox, sandboxState, id);
}

function check(
  kind: LifecycleKind,
  operation: string,
  /** Whose state is in the way: the thing itself, or the sandbox around it. */
  blocker: LifecycleKind,
  allowed: readonly LifecycleState[],
  state: LifecycleState,
  id: string | undefined,
): void {
  if (allowed.includes(state)) return;
  const who = blocker === kind ? named(kind, id) : `the ${blocker} of ${named(kind, id)}`;
  throw new BelljarError(
    "INVALID_TRANSITION",
    `${who} is ${state}; for ${JSON.stringify(operation)} it must be ${listed(allowed)}`,
    {
      facts: { kind, ...(id === undefined ? {} : { id }), operation, blocker, state, allowed },
      ...remedyFor(operation, state, allowed),
    },
  );
}

/** What brings it into a state that would do. */
function remedyFor(
  operation: string,
  state: LifecycleState,
  allowed: readonly LifecycleState[],
): { readonly remedy?: string } {
  if (state === "running") {
    return operation === "delete" ? { remedy: "Stop it first, or delete it with force: `belljar rm -f`." } : {};
  }
  if (!allowed.includes("running")) return {};
  return { remedy: state === "paused" ? "`belljar resume` lets it go on." : "`belljar start` starts it." };
}

function named(kind: LifecycleKind, id: string | undefined): string {
  return id === undefined ? `the ${kind}` : `${kind} ${id}`;
}

function listed(states: readonly LifecycleState[]): string {
  return states.join(" or ");
}
