/**
 * What a new owner does with one sandbox that it finds: the state says what there was and what was about to be done, the VMM and
 * the agent say what there is. Nothing of what runs is disturbed; what was half done is finished or undone.
 */
import {
  BelljarError,
  type LifecycleState,
  messageChain,
  type Places,
  sandboxLimits,
  withDeadline,
} from "../base/index.ts";
import { withDiskPaths } from "../checkpoint/index.ts";
import { type ContainerState, sharedDevices } from "../container/index.ts";
import type { VmState } from "../hypervisor/interface.ts";
import { type SandboxIntent, type SandboxState, settleInterfaces } from "../sandbox/index.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";
import { reconcileContainers } from "./reconcile.ts";
import { settleSize } from "./sandbox-resources.ts";
import { paused, resumed } from "./state-moves.ts";

/** What became of a sandbox, in words for a log. */
export type Outcome = "live" | "stopped" | "removed" | "rolled back" | "waiting" | "hibernated" | "unfinished";

/**
 * In the sandbox's turn. Never waits longer than the limit for the VMM or the agent.
 * @param places of those whose agents are asked at once
 */
export async function recoverSandbox(managed: ManagedSandbox, places: Places): Promise<Outcome> {
  const { sandbox } = managed;
  const operation = sandbox.state.pending?.operation;
  if (operation === "create" || operation === "delete") {
    await attachQuietly(managed);
    await managed.remove();
    return operation === "create" ? "rolled back" : "removed";
  }
  const sleep = await managed.hibernation.recover();
  if (sleep !== undefined) return sleep;
  if (sandbox.state.vm === undefined) {
    await managed.markEnded(operation === "start" ? cutShort("its start") : lost(managed));
    return "stopped";
  }
  try {
    const { containers, runDir } = sandbox.state;
    const devices = containers.flatMap((container) => sharedDevices(container, runDir));
    const disks = containers.flatMap((each) => each.disks);
    if (!sandbox.hasMachine) await bounded("the VMM", () => sandbox.attach(disks, devices));
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (error.reason === "VMM_DIED") {
      await managed.markEnded(operation === "stop" ? undefined : error);
      return "stopped";
    }
    // It is there and does not answer: it is not ours to kill what may be doing its work.
    managed.problem = `its VMM does not answer: ${messageChain(error).join(": ")}`;
    return "waiting";
  }
  return await settle(managed, places);
}

async function settle(managed: ManagedSandbox, places: Places): Promise<Outcome> {
  const { sandbox } = managed;
  const operation = sandbox.state.pending?.operation;
  const { status } = await sandbox.machine.vm.info();
  if (status === "ended") {
    await managed.markEnded(operation === "stop" ? undefined : lost(managed));
    return "stopped";
  }
  if (operation === "stop") {
    // As far as the guest goes along: what is unmounted is written.
    if (status === "running") await bounded("the agent", () => stopContainers(managed)).catch(() => {});
    await managed.markEnded(undefined);
    return "stopped";
  }
  await sandbox.update((state) => withDisksOf(state, sandbox.machine.vm.save()));
  const isSaving = operation === "checkpoint" || operation === "hibernate";
  if (status === "paused" && isSaving && sandbox.state.state === "running") {
    // Whoever stopped it for a moment has died.
    await bounded("the VMM", () => sandbox.machine.vm.resume());
    return await meetAgent(managed, (signal) => placeIn(places, signal));
  }
  if (status === "paused") {
    // Whatever it was when its CPUs were stopped, or stopped by themselves.
    await sandbox.update((state) => ({ ...paused({ ...state, state: "running" }), pending: undefined }));
    return "live";
  }
  if (sandbox.state.state === "paused") await sandbox.update(resumed);
  return await meetAgent(managed, (signal) => placeIn(places, signal));
}

async function placeIn(places: Places, signal: AbortSignal): Promise<Disposable> {
  return await places.take(sandboxLimits.recoveryAgentTimeoutMs, signal);
}

async function meetAgent(
  managed: ManagedSandbox,
  enter: (signal: AbortSignal) => Promise<Disposable>,
  timeoutMs: number = sandboxLimits.recoveryAgentTimeoutMs,
): Promise<Outcome> {
  const { sandbox } = managed;
  const wasStarting = sandbox.state.pending?.operation === "start" && sandbox.state.state === "stopped";
  let hasStarted: boolean;
  try {
    hasStarted = await withDeadline({ timeoutMs, what: "the agent" }, async (signal) => {
      using _place = await enter(signal);
      await sandbox.agent(signal);
      await settleInterfaces(sandbox, signal);
      if (mayBeFrozen(sandbox.state)) {
        const { id, state } = sandbox;
        // Its connections to the outside are another VM's.
        if (state.pending?.operation === "wake") await sandbox.configureNetwork(signal);
        await sandbox.machine.thaw({ event: "resumed", sandboxId: id, generation: state.generation }, signal);
      }
      return await reconcileContainers(managed, signal);
    });
    await bounded("the agent", (signal) => settleSize(sandbox, signal)).catch((error: unknown) => {
      sandbox.log.warn("the VM's size could not be settled", { cause: messageChain(error).join(": ") });
    });
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (wasStarting || error.reason === "AGENT_FAILED" || error.reason === "AGENT_VERSION") {
      await managed.markEnded(wasStarting ? cutShort("its start") : error);
      return "stopped";
    }
    if (error.reason === "VMM_DIED" || error.reason === "GUEST_PANIC") {
      await managed.markEnded(error);
      return "stopped";
    }
    managed.problem = `its agent does not answer: ${messageChain(error).join(": ")}`;
    return "waiting";
  }
  managed.problem = undefined;
  if (sandbox.state.pending?.operation === "start" && !hasStarted && areStopped(sandbox.state.containers)) {
    await managed.markEnded(cutShort("its start"));
    return "stopped";
  }
  await sandbox.update((state) => ({
    ...state,
    state: stateAfter(state),
    pending: undefined,
    workloadFrozen: undefined,
  }));
  return "live";
}

const MAY_FREEZE: ReadonlySet<SandboxIntent> = new Set(["checkpoint", "pause", "resume", "hibernate", "wake"]);

/** Somebody was about to freeze its containers, or to thaw them. */
function mayBeFrozen({ pending, workloadFrozen }: SandboxState<ContainerState>): boolean {
  const operation = pending?.operation;
  return workloadFrozen === true || (operation !== undefined && MAY_FREEZE.has(operation));
}

/** What the VM's disks are now: overlays may have been put over them by an owner that did not live to write it down. */
function withDisksOf(state: SandboxState<ContainerState>, vm: VmState): SandboxState<ContainerState> {
  const written = vm.disks.filter(({ overlays = 0 }) => overlays > 0);
  return withDiskPaths({ ...state, vm }, new Map(written.map(({ serial, path }) => [serial, path])));
}

/** Of a start that was cut short: the VM is up, its containers may be made in it, and none of them had been started. */
function areStopped(containers: readonly ContainerState[]): boolean {
  return containers.length > 0 && containers.every(({ state }) => state === "stopped");
}

/** A start of what was ready, cut short before anything had started, has not happened. */
function stateAfter({ state, pending, containers }: SandboxState<ContainerState>): LifecycleState {
  if (state === "stopped") return "running";
  const isReady = pending?.operation === "start" && containers.every((each) => each.state === "ready");
  return isReady ? "ready" : state;
}

/** For one whose VMM or agent was too slow, or had others before it: as often as it takes. */
export async function recoverLater(managed: ManagedSandbox, places: Places): Promise<void> {
  const { sandbox } = managed;
  try {
    while ((await tryAgain(managed, places)) === "waiting") {
      await sandbox.clock.sleep(sandboxLimits.recoveryAgainMs, sandbox.gone);
    }
  } catch (error) {
    if (sandbox.gone.aborted) return;
    sandbox.log.warn("a sandbox could not be recovered", { cause: messageChain(error).join(": ") });
  }
}

async function tryAgain(managed: ManagedSandbox, places: Places): Promise<Outcome> {
  const { sandbox } = managed;
  const inTurn = (work: () => Promise<Outcome>): Promise<Outcome> =>
    sandbox.exclusive("recover", async () => {
      const outcome = await work();
      if (outcome === "live") await managed.takeUp();
      return outcome;
    });
  if (!sandbox.hasMachine) return await inTurn(() => recoverSandbox(managed, places));
  using place = await placeIn(places, sandbox.gone);
  // Not in the sandbox's turn: whoever wants to end it need not wait for a guest that may never answer. Why it does not is told below.
  await sandbox.agent().catch(() => {});
  return await inTurn(async () => {
    if (!sandbox.hasMachine) return "stopped";
    return await meetAgent(managed, async () => place, sandboxLimits.recoveryLaterTimeoutMs);
  });
}

/** Its owner died while it woke: whoever wanted it awake finds it so. */
export async function finishWake(managed: ManagedSandbox): Promise<void> {
  const { sandbox, hibernation } = managed;
  try {
    await hibernation.wake();
  } catch (error) {
    if (sandbox.gone.aborted) return;
    sandbox.log.warn("a sandbox could not be woken", { cause: messageChain(error).join(": ") });
  }
}

async function stopContainers(managed: ManagedSandbox): Promise<void> {
  const { containers } = managed.state;
  await managed.sandbox.agent();
  for (const { id } of containers) await managed.container(id).watch();
  await Promise.all(containers.map(({ id }) => managed.container(id).stop({ timeoutMs: 0, force: true })));
}

/** A handle on the VM where there is one, to end it with. */
async function attachQuietly(managed: ManagedSandbox): Promise<void> {
  if (managed.state.vm === undefined) return;
  await bounded("the VMM", () => managed.sandbox.attach([])).catch(() => {});
}

const limits = { "the VMM": sandboxLimits.recoveryVmmTimeoutMs, "the agent": sandboxLimits.recoveryAgentTimeoutMs };

async function bounded<T>(what: keyof typeof limits, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return await withDeadline({ timeoutMs: limits[what], what }, work);
}

/** Undefined for a sandbox that had been stopped: it is as it was. */
function lost(managed: ManagedSandbox): BelljarError | undefined {
  if (managed.state.state === "stopped") return undefined;
  return new BelljarError("VMM_DIED", "its VM was gone when the runtime came back");
}

function cutShort(what: string): BelljarError {
  return new BelljarError("VMM_DIED", `${what} was cut short by the end of the runtime`);
}
