/**
 * One sandbox with its containers: the moves of the whole. Every method that changes something takes the sandbox's turn, writes
 * its intent down before the first step, and clears it together with the result.
 */
import {
  BelljarError,
  checkName,
  checkSandboxOperation,
  messageChain,
  type SandboxOperation,
  sandboxLimits,
  transition,
} from "../base/index.ts";
import { type Captured, capture, type GuestMemory } from "../checkpoint/index.ts";
import {
  Container,
  type ContainerState,
  Copies,
  forgetDirectVolumes,
  type HostSandbox,
  type MountHost,
  Outputs,
  reservePciDevices,
  sharedDisks,
  sizeFor,
} from "../container/index.ts";
import { noNetworks } from "../network/index.ts";
import { PROTOCOL_VERSION } from "../protocol/index.ts";
import { checkLateAnnotations, Monitor, type SandboxIntent, type SandboxState } from "../sandbox/index.ts";
import type { RuntimeDeps } from "./deps.ts";
import { Events } from "./events.ts";
import { openGuestImage } from "./guest-image.ts";
import { Hibernation, type RewindTarget } from "./hibernation.ts";
import { IdleWatch } from "./idle-watch.ts";
import type { CallOptions, SandboxEvent, SandboxResources, StopOptions } from "./interface.ts";
import { Keeper, type Trails } from "./keeper.ts";
import { NetworkFollower } from "./network-watch.ts";
import { updateResources } from "./sandbox-resources.ts";
import { paused, resumed, shownState, stopped } from "./state-moves.ts";

type State = SandboxState<ContainerState>;

export interface ManagedSandboxDeps {
  readonly runtime: RuntimeDeps;
  readonly mounts: MountHost;
  readonly memory: GuestMemory;
  /** It is no more: its name is free. */
  readonly onDeleted: (id: string) => void;
  readonly onEvent: (id: string, name: string, event: SandboxEvent) => void;
  /** Nobody else can take this name until it is let go. @throws BelljarError `SANDBOX_EXISTS` */
  readonly reserveName: (name: string) => Disposable;
  readonly trails: Trails;
}

export class ManagedSandbox {
  readonly sandbox: HostSandbox;
  readonly events: Events;
  /** What is wrong with it although its state can be read. */
  problem: string | undefined;
  readonly outputs: Outputs;
  readonly copies: Copies;
  readonly hibernation: Hibernation;
  readonly #deps: ManagedSandboxDeps;
  readonly #monitor: Monitor;
  readonly #idleWatch: IdleWatch;
  readonly #network: NetworkFollower;
  readonly #keeper: Keeper;

  constructor(deps: ManagedSandboxDeps, sandbox: HostSandbox) {
    this.sandbox = sandbox;
    this.events = new Events((event) => deps.onEvent(sandbox.id, this.state.name, event));
    this.outputs = new Outputs(sandbox);
    this.copies = new Copies(sandbox);
    this.#deps = deps;
    this.#monitor = new Monitor({
      checks: {
        vmm: () => sandbox.machine.vm.check(),
        // What costs the guest least.
        agent: (signal) => sandbox.call("hello", { protocolVersion: PROTOCOL_VERSION }, { signal }),
      },
      clock: deps.runtime.clock,
      onFailure: (part, message) => {
        sandbox.log.warn("the sandbox is failing", { part, message });
        this.events.emit({ kind: "failed", atMs: deps.runtime.clock.nowMs(), part, message });
      },
    });
    this.hibernation = new Hibernation({
      ...{ runtime: deps.runtime, memory: deps.memory, sandbox, outputs: this.outputs, copies: this.copies },
      monitor: this.#monitor,
      letGo: () => this.#network.stop(),
      takeUp: (introduced) => this.takeUp(0, introduced),
    });
    this.#idleWatch = new IdleWatch({
      sandbox,
      hibernation: this.hibernation,
      networks: deps.runtime.networks ?? noNetworks,
      clock: deps.runtime.clock,
    });
    this.#keeper = new Keeper({
      sandbox,
      trails: deps.trails,
      clock: deps.runtime.clock,
      start: () => this.#startAgain(),
    });
    sandbox.listen((before, after) => this.#onChange(before, after));
    this.#network = new NetworkFollower(sandbox, (packets) => {
      this.events.emit({ kind: "denied", atMs: deps.runtime.clock.nowMs(), packets });
    });
  }

  get runtime(): RuntimeDeps {
    return this.#deps.runtime;
  }

  get mounts(): MountHost {
    return this.#deps.mounts;
  }

  get state(): State {
    return this.sandbox.state;
  }

  /** @throws BelljarError `INVALID_TRANSITION` */
  check(operation: SandboxOperation): void {
    const { state, hibernation } = this.state;
    try {
      checkSandboxOperation(operation, state, this.sandbox.id);
    } catch (error) {
      if (hibernation === undefined) throw error;
      const message = `sandbox ${this.sandbox.id} is hibernated, and does not wake for ${JSON.stringify(operation)}`;
      throw new BelljarError("INVALID_TRANSITION", message, { remedy: "Wake it first." });
    }
  }

  container(id: string): Container {
    return new Container(this, id);
  }

  exclusive<T>(what: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.sandbox.exclusive(what, work, { signal });
  }

  /** From now on the VM's end, and that of its containers, are taken note of. */
  async supervise(graceMs = 0): Promise<void> {
    this.sandbox.onVmEnd((error) => {
      const note = this.sandbox.exclusive("note the end of", () => this.markEnded(error), { evenWhenDeleting: true });
      note.catch((failure: unknown) => this.#warn("the end of a VM could not be noted", failure));
    });
    if (this.state.state === "running") this.#monitor.start(graceMs);
    this.#idleWatch.start();
    await this.#network.start();
    this.keep();
  }

  /** What it does for itself in the long run goes on, as its state says. */
  keep(): void {
    this.#keeper.start();
  }

  /** It is awake while this is done, which begins at once in one that is. @throws BelljarError what a wake throws */
  awake<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.hibernation.awake(work, signal);
  }

  /**
   * Takes up what a former owner has let go of, or a copy that has just been made.
   * @param introduced of a copy whose containers run before its agent has answered
   */
  async takeUp(graceMs = 0, introduced?: Promise<void>): Promise<void> {
    introduced?.catch(() => {});
    await this.supervise(graceMs);
    for (const { id } of this.state.containers) await this.container(id).watch();
    this.#followMain(undefined, this.state);
    // When all of that has begun: it may be the end of the VM.
    introduced?.catch((thrown: unknown) => this.#agentFailed(BelljarError.from(thrown)));
  }

  async start({ signal }: CallOptions = {}): Promise<void> {
    if (this.state.hibernation !== undefined) return await this.hibernation.wake(signal);
    if (this.state.restarts !== undefined || this.state.stopAsked === true) await this.#forgive();
    await this.exclusive("start", () => this.#start(signal), signal);
  }

  /** What the containers have not written yet is in the guest's memory: a hibernated one wakes for it, unless forced. */
  async stop(options: StopOptions = {}): Promise<void> {
    const stop = async (): Promise<void> => {
      if (this.state.settings.restart !== undefined && this.state.state !== "stopped") {
        await this.sandbox.update((state) => ({ ...state, stopAsked: true, restarts: undefined }));
      }
      await this.#stop(options);
    };
    const work = (): Promise<void> => this.exclusive("stop", stop, options.signal);
    await (options.force === true ? work() : this.awake(work, options.signal));
  }

  /** @throws BelljarError what a wake throws; it is hibernated at the checkpoint then */
  async rewind(target: RewindTarget, signal?: AbortSignal): Promise<void> {
    const work = async (): Promise<void> => {
      this.check("rewind");
      await this.hibernation.rewind(target);
    };
    await this.exclusive("rewind", work, signal);
  }

  async pause(): Promise<void> {
    await this.exclusive("pause", async () => {
      this.check("pause");
      await this.#during("pause", async () => {
        await this.#monitor.stop();
        const workloadFrozen = await this.#freeze();
        await this.outputs.suspend();
        try {
          await this.sandbox.machine.vm.pause();
          await this.sandbox.update((state) => paused({ ...state, workloadFrozen }), { force: true });
        } catch (error) {
          if (workloadFrozen) await this.#thaw().catch((failure: unknown) => this.#warn("left frozen", failure));
          await this.outputs.resume();
          this.#monitor.start();
          throw error;
        }
      });
    });
  }

  async resume(): Promise<void> {
    if (this.state.hibernation !== undefined) return await this.hibernation.wake();
    await this.exclusive("resume", async () => {
      this.check("resume");
      await this.#during("resume", () => this.#resume());
    });
  }

  /**
   * Takes a snapshot, while it goes on or stays paused. `link` is called in the same turn: until it is over, nobody takes the snapshot's
   * files away.
   */
  async capture<T>(
    dir: string,
    link: (captured: Captured) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<{ readonly captured: Captured; readonly linked: T }> {
    return await this.exclusive(
      "checkpoint",
      async () => {
        this.check("checkpoint");
        return await this.#during("checkpoint", async () => {
          await this.#monitor.stop();
          try {
            const { sandbox, outputs } = this;
            const { memory, runtime } = this.#deps;
            const captured = await capture({ sandbox, outputs, memory, clock: runtime.clock }, dir, { signal });
            return { captured, linked: await link(captured) };
          } finally {
            if (this.state.state === "running") this.#monitor.start();
          }
        });
      },
      signal,
    );
  }

  /** Another size of the VM, now or from its next start on. */
  async update(change: SandboxResources, { signal }: CallOptions = {}): Promise<void> {
    await this.exclusive("resize", () => updateResources(this.sandbox, change, signal), signal);
  }

  /** Idempotent for a deletion that was cut short. */
  async delete(options: { readonly force?: boolean | undefined } & CallOptions = {}): Promise<void> {
    await this.sandbox.exclusive(
      "delete",
      async () => {
        const isForced = options.force === true;
        if (this.state.pending?.operation !== "delete" && !isForced) this.check("delete");
        await this.#intend("delete", isForced);
        await this.remove();
      },
      { signal: options.signal, evenWhenDeleting: true },
    );
  }

  /** Ends the VM and removes every trace; the state last. */
  async remove(): Promise<void> {
    await this.#monitor.stop();
    await this.#network.stop();
    await this.#unmount(this.state.containers.filter(hasVolume), sandboxLimits.forcedCallTimeoutMs);
    await this.sandbox.endVm();
    await this.outputs.release();
    await this.copies.stopAll();
    this.#idleWatch.stop();
    this.#keeper.stop();
    await this.hibernation.close();
    for (const container of this.state.containers) await forgetDirectVolumes(this, container);
    await this.sandbox.remove();
    this.#deps.onDeleted(this.sandbox.id);
    this.events.emit({ kind: "deleted", atMs: this.runtime.clock.nowMs() });
    this.events.end();
  }

  async setAnnotations(annotations: Readonly<Record<string, string>>): Promise<void> {
    const checked = checkLateAnnotations(annotations);
    await this.exclusive("annotate", () =>
      this.sandbox.update((state) => ({ ...state, annotations: { ...state.annotations, ...checked } })),
    );
  }

  async rename(name: string): Promise<void> {
    checkName(name, "sandbox");
    await this.exclusive("rename", async () => {
      if (this.state.name === name) return;
      using _reserved = this.#deps.reserveName(name);
      await this.sandbox.update((state) => ({ ...state, name }));
    });
  }

  /** The VM is no more, or is not to be any more: everything in it has stopped. The first cause is kept. */
  async markEnded(error: BelljarError | undefined, containersError = error): Promise<void> {
    await this.#monitor.stop();
    this.#idleWatch.stop();
    await this.#network.stop();
    await this.copies.stopAll();
    await this.sandbox.endVm();
    for (const { id } of this.state.containers) {
      const sealing = this.outputs.drain(id, { canBeAsked: false });
      await sealing.catch((failure: unknown) => this.#warn("the end of an output could not be written", failure));
    }
    const atMs = this.runtime.clock.nowMs();
    await this.sandbox.update((state) => stopped(state, error, atMs, containersError), { force: true });
    await this.hibernation.forget().catch((failure: unknown) => this.#warn("what it slept in is left", failure));
  }

  async release(): Promise<void> {
    this.events.end();
    await this.#monitor.stop();
    this.#idleWatch.stop();
    this.#keeper.stop();
    await this.hibernation.close();
    await this.#network.stop();
    await this.outputs.release();
    await this.copies.stopAll();
    await this.sandbox.release();
  }

  /** A copy whose agent knows nothing of it, or says so, can be asked for nothing ever: it ends. One that is slow is waited for by each call. */
  #agentFailed(error: BelljarError): void {
    if (this.sandbox.gone.aborted || this.state.vm === undefined) return;
    // Of one that is just ending nobody wants an answer any more.
    if (!this.sandbox.hasMachine || this.sandbox.machine.lifetime.aborted) return;
    this.#warn("the agent of a copy does not answer", error);
    if (error.reason !== "AGENT_FAILED" && error.reason !== "AGENT_VERSION") return;
    const note = this.sandbox.exclusive("note the end of", () => this.markEnded(error), { evenWhenDeleting: true });
    note.catch((failure: unknown) => this.#warn("the end of a VM could not be noted", failure));
  }

  /** By itself: its failures in a row are not forgotten. */
  async #startAgain(): Promise<void> {
    if (this.state.state === "stopped") await this.exclusive("start", () => this.#start(undefined));
    else if (this.state.state === "running") {
      const id = this.state.containers[0]?.id;
      if (id !== undefined) await this.exclusive("start a container of", () => this.container(id).start());
    }
  }

  /** Somebody starts it: what has failed before does not count. */
  #forgive(): Promise<void> {
    return this.sandbox.update((state) => ({ ...state, restarts: undefined, stopAsked: undefined }));
  }

  async #start(signal: AbortSignal | undefined): Promise<void> {
    this.check("start");
    const { state, containers } = this.state;
    if (state === "stopped") await this.#intend("start");
    else await this.sandbox.update((now) => ({ ...now, ...this.#moved("running"), pending: this.#pending("start") }));
    let starting: Container | undefined;
    try {
      if (state === "stopped") {
        const image = await openGuestImage(this.runtime.guestImages, this.state.guestImage);
        await reservePciDevices(
          this.sandbox,
          containers.flatMap(({ config }) => config.pciDevices ?? []),
        );
        const limits = containers.map((each) => each.limits);
        await this.sandbox.boot(image, sizeFor(this.state.settings, this.sandbox.maxSize, limits), { signal });
        await this.sandbox.agent(signal);
        await this.sandbox.update((now) => ({ ...now, ...this.#moved("running"), end: undefined }));
        await this.supervise();
      }
      this.#monitor.start();
      for (const { id } of containers) {
        const container = this.container(id);
        if (container.state.state === "running") continue;
        starting = container;
        await container.start({ signal });
        starting = undefined;
      }
      await this.sandbox.update((now) => ({ ...now, pending: undefined }));
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      const ending = this.markEnded(error, starting === undefined ? error : startFailed(this.state, starting, error));
      await ending.catch((failure: unknown) => this.#warn("a start could not be undone", failure));
      throw error;
    }
  }

  async #stop(options: StopOptions): Promise<void> {
    if (this.state.state === "stopped") return;
    const isForced = options.force === true;
    await this.#intend("stop", isForced);
    try {
      if (await this.#canBeAsked(isForced)) {
        if (this.state.state === "paused") await this.#resume();
        await this.#stopContainers(options);
      }
    } catch (error) {
      if (!isForced) {
        await this.#settle();
        throw error;
      }
      this.#warn("stopped in spite of an error", error);
    }
    await this.markEnded(undefined);
  }

  async #stopContainers(options: StopOptions): Promise<void> {
    const { containers } = this.state;
    // One that has ended by itself is still in the guest, with the last of its output.
    const ended = containers.filter(({ state, inGuest }) => state === "stopped" && inGuest);
    await Promise.all(ended.map(({ id }) => this.outputs.drain(id, { canBeAsked: true })));
    const results = await Promise.allSettled(containers.map(({ id }) => this.container(id).stop(options)));
    const failed = results.filter((result) => result.status === "rejected");
    if (failed.length > 0) throw failed[0]?.reason;
    await this.#unmount(ended, options.force === true ? sandboxLimits.forcedCallTimeoutMs : undefined);
  }

  /**
   * What containers have written is in the guest's memory until their file systems are unmounted; a VM that is ended takes it with
   * it. Of a guest that does not go along nothing is expected.
   */
  async #unmount(containers: readonly ContainerState[], timeoutMs: number | undefined): Promise<void> {
    const there = containers.filter(({ inGuest }) => inGuest);
    if (there.length === 0 || !this.sandbox.hasMachine) return;
    try {
      if (this.state.state === "paused") await this.sandbox.machine.vm.resume();
      const calls = there.map(({ id }) => this.sandbox.call("removeContainer", { containerId: id }, { timeoutMs }));
      await Promise.all(calls);
    } catch (error) {
      this.#warn("what was written last may be lost: a container's disks could not be unmounted", error);
    }
  }

  /** A guest that does not answer has no part in a forced stop. */
  async #canBeAsked(isForced: boolean): Promise<boolean> {
    if (!this.sandbox.hasMachine) return false;
    if (!isForced || this.state.state === "paused") return this.state.state !== "paused" || !isForced;
    try {
      await this.sandbox.call("getGuestStats", {}, { timeoutMs: sandboxLimits.agentCheckTimeoutMs });
      return true;
    } catch {
      return false;
    }
  }

  async #resume(): Promise<void> {
    const { machine } = this.sandbox;
    await machine.vm.resume();
    await this.sandbox.update(resumed, { force: true });
    await this.outputs.resume();
    this.#monitor.start();
    // Its clock stood still.
    await machine.whileAlive(machine.configure()).catch((error: unknown) => {
      this.#warn("the guest's clock could not be set", error);
    });
    if (this.state.workloadFrozen === true) await this.#thaw();
  }

  /**
   * Before its CPUs stop: a copy of a paused sandbox must come to itself before its containers run. One whose agent does not answer
   * is paused all the same, and cannot be copied until it was resumed.
   */
  async #freeze(): Promise<boolean> {
    try {
      await this.sandbox.machine.freeze(false);
      return true;
    } catch (error) {
      this.#warn("paused without its containers being frozen", error);
      return false;
    }
  }

  async #thaw(): Promise<void> {
    const { machine, id } = this.sandbox;
    await machine.thaw({ event: "resumed", sandboxId: id, generation: this.state.generation });
    await this.sandbox.update((state) => ({ ...state, workloadFrozen: undefined }), { force: true });
  }

  #moved(to: State["state"]): Pick<State, "state"> {
    const from = this.state.state;
    return { state: from === to ? to : transition("sandbox", from, to, this.sandbox.id) };
  }

  #pending(operation: SandboxIntent): State["pending"] {
    return { operation, sinceMs: this.runtime.clock.nowMs() };
  }

  #intend(operation: SandboxIntent, force = false): Promise<void> {
    return this.sandbox.update((state) => ({ ...state, pending: this.#pending(operation) }), { force });
  }

  #settle(operation?: SandboxIntent): Promise<void> {
    // Counted whether it went well or not.
    const more = operation === "checkpoint" ? { checkpoints: (this.state.checkpoints ?? 0) + 1 } : {};
    return this.sandbox.update((state) => ({ ...state, ...more, pending: undefined }), { force: true });
  }

  async #during<T>(operation: SandboxIntent, work: () => Promise<T>): Promise<T> {
    await this.#intend(operation);
    try {
      return await work();
    } finally {
      await this.#settle(operation);
    }
  }

  #onChange(before: State, after: State): void {
    const atMs = this.runtime.clock.nowMs();
    if (before.name !== after.name) this.events.emit({ kind: "renamed", atMs, oldName: before.name });
    const [was, now] = [shownState(before), shownState(after)];
    if (was !== now) this.events.emit({ kind: "state", atMs, state: now });
    for (const { id, state } of after.containers) {
      const wasState = before.containers.find((container) => container.id === id)?.state;
      if (wasState !== state) this.events.emit({ kind: "container", atMs, containerId: id, state });
    }
    this.#followMain(before, after);
    if (before.state !== "stopped" && after.state === "stopped" && after.settings.autoRemove) {
      this.#later("remove", async () => {
        await this.outputs.lastReaders();
        await this.delete();
      });
    }
  }

  /** A sandbox that stops with its first container. */
  #followMain(before: State | undefined, after: State): void {
    const main = after.containers[0];
    if (!after.settings.stopWithMain || main?.state !== "stopped" || after.state !== "running") return;
    if (before?.containers[0]?.state === "stopped") return;
    this.#later("stop", () => this.exclusive("stop", () => this.#stop({})));
  }

  #later(what: string, work: () => Promise<void>): void {
    work().catch((error: unknown) => {
      if (!this.sandbox.gone.aborted) this.#warn(`the runtime could not ${what} the sandbox`, error);
    });
  }

  #warn(message: string, error: unknown): void {
    this.sandbox.log.warn(message, { cause: messageChain(error).join(": ") });
  }
}

/** A disk that outlives its container, and that is written to. */
function hasVolume(container: ContainerState): boolean {
  return sharedDisks(container).some(({ readOnly }) => !readOnly);
}

/** Why containers were ended that are not to blame for the failed start; the end of a VM is everybody's. */
function startFailed({ id }: State, { state }: Container, error: BelljarError): BelljarError {
  if (error.reason === "VMM_DIED" || error.reason === "GUEST_PANIC") return error;
  const message = `the start of sandbox ${id} failed: its container ${state.name} could not be started`;
  return new BelljarError("CONTAINER_START_FAILED", message, { cause: error });
}
