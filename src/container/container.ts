/**
 * One OCI container of a sandbox, and every move of its life. What it knows stands in the sandbox's state; this object has
 * only what cannot be written down: who watches its first process.
 *
 * Everything that changes the container is called in the sandbox's turn (`Sandbox.exclusive`), one after the other. The one
 * change that comes by itself, the end of the first process, may fall between any two steps; so each step looks again.
 */
import type { CallOptions } from "../agent-client/index.ts";
import { BelljarError, checkContainerOperation, sandboxLimits, transition } from "../base/index.ts";
import type { ContainerLimits, ProcessConfig } from "./config.ts";
import { changeContainer, forget, stateOf, stoppedState } from "./container-state.ts";
import { forgetDirectVolumes } from "./direct-volumes.ts";
import { ownDisks } from "./disk-names.ts";
import { endFirst, sendSignal } from "./end.ts";
import { watchForExit } from "./exit-watch.ts";
import { removeOwnDisk } from "./frozen-disks.ts";
import { growStorage } from "./growth.ts";
import { enterGuest, leaveGuest } from "./guest-part.ts";
import type { ContainerHost } from "./host.ts";
import { type LaunchOptions, startFirst, startFurther } from "./launch.ts";
import { CPU_PERIOD_US, checkLimits, cpuQuotaUs, mergeLimits } from "./limits.ts";
import type { Outputs } from "./outputs.ts";
import { growFor, shrinkToNeed } from "./sizing.ts";
import type { ContainerIntent, ContainerState, ExecRecord, HostSandbox } from "./state.ts";
import { type ContainerStats, toContainerStats } from "./stats.ts";
import { toMilliseconds } from "./status.ts";
import { checkSignal } from "./stop-signal.ts";

export interface StopContainerOptions {
  /** Between the stop signal and SIGKILL; 0 kills at once. */
  readonly timeoutMs?: number | undefined;
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class Container {
  readonly id: string;
  readonly #sandbox: HostSandbox;
  readonly #outputs: Outputs;
  readonly #host: ContainerHost;

  constructor(host: ContainerHost, id: string) {
    this.#host = host;
    this.#sandbox = host.sandbox;
    this.#outputs = host.outputs;
    this.id = id;
  }

  /** @throws BelljarError `CONTAINER_NOT_FOUND` when it was deleted */
  get state(): ContainerState {
    return stateOf(this.#sandbox, this.id);
  }

  /** Runs its command. A failure leaves it `stopped`, with the cause. */
  async start(options: LaunchOptions = {}): Promise<void> {
    const { signal } = options;
    this.#check("start");
    await this.#update({ pending: this.#pending("start") });
    try {
      // What ran before has its remains in the guest.
      if (this.state.inGuest && this.state.state === "stopped") await this.#leaveGuest();
      await growFor(this.#sandbox, this.id, { signal });
      if (!this.state.inGuest) await enterGuest(this.#host, this.state, signal);
      await this.#running(await startFirst(this.#sandbox, this.id, options));
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      await this.#leaveGuest().catch((failure: unknown) => {
        this.#sandbox.log.warn("a container that did not start is left in the guest", { cause: String(failure) });
      });
      await this.markStopped(error);
      await shrinkToNeed(this.#sandbox);
      throw error;
    }
  }

  /** Waits for its output and for its end in the background, until the VM ends or this process lets go. */
  async watch(): Promise<void> {
    const { state } = this.state;
    if (state === "running" || state === "paused") watchForExit(this.#sandbox, this.id);
    if (this.state.inGuest) this.#host.copies.watch(this.id, this.state.mounts ?? []);
    if (this.#sandbox.state.state !== "paused") await this.#outputs.start(this.id);
  }

  /** Stop signal, grace, SIGKILL; then out of the guest. A stopped container is success. */
  async stop(options: StopContainerOptions = {}): Promise<void> {
    if (this.state.state === "stopped") return;
    this.#check("stop");
    const force = options.force === true;
    const graceMs = options.timeoutMs ?? sandboxLimits.stopGraceMs;
    const sinceMs = this.#sandbox.clock.nowMs();
    await this.#update({ pending: { operation: "stop", sinceMs } }, { force });
    const errors: unknown[] = [];
    const step = async (work: () => Promise<void>): Promise<void> => {
      try {
        await work();
      } catch (error) {
        if (!force) throw error;
        errors.push(error);
      }
    };
    try {
      if (this.#sandbox.hasMachine) {
        await step(() => endFirst(this.#sandbox, this.id, { graceMs, force, signal: options.signal }));
        await step(() => this.#leaveGuest(force ? { timeoutMs: sandboxLimits.killTimeoutMs } : {}));
      }
      await this.markStopped(undefined);
    } catch (error) {
      await this.#update({ pending: undefined }, { force: true });
      throw error;
    }
    await shrinkToNeed(this.#sandbox);
    for (const error of errors) this.#sandbox.log.warn("stopped in spite of an error", { cause: String(error) });
  }

  /** A process that is gone is success. */
  async kill(number: number, all: boolean, signal?: AbortSignal): Promise<void> {
    checkSignal(number);
    if (this.state.state === "stopped") return;
    this.#check("signal");
    await sendSignal(this.#sandbox, { containerId: this.id, processId: "", signal: number, all }, { signal });
  }

  async delete(): Promise<void> {
    this.#check("delete");
    await this.#update({ pending: this.#pending("delete") });
    await this.remove();
    await shrinkToNeed(this.#sandbox);
  }

  /** Takes it out of the guest, removes its disks, and forgets it. */
  async remove(): Promise<void> {
    const { state } = this;
    if (this.#sandbox.hasMachine && (state.inGuest || state.pending !== undefined)) await this.#leaveGuest();
    for (const { path } of ownDisks(state.disks)) await removeOwnDisk(path);
    await forgetDirectVolumes(this.#host, state);
    await this.#outputs.forget(this.id);
    await forget(this.#sandbox, this.id);
  }

  /** Freezes its processes in the guest. */
  async pause(): Promise<void> {
    this.#check("pause");
    await this.#during("pause", async () => {
      await this.#sandbox.call("pauseContainer", { containerId: this.id });
      // Its first process may have ended while it was being frozen.
      if (this.state.state === "running") await this.#update({ state: "paused", frozen: true });
    });
  }

  async resume(): Promise<void> {
    this.#check("resume");
    await this.#during("resume", async () => {
      await this.#sandbox.call("resumeContainer", { containerId: this.id });
      if (this.state.state === "paused") await this.#update({ state: "running", frozen: false });
    });
  }

  /** Merges limits into those that are there, in the guest and in the state; the VM grows for them first, or shrinks afterwards. */
  async update(change: ContainerLimits): Promise<void> {
    this.#check("update");
    const limits = mergeLimits(this.state.limits, change);
    checkLimits(limits, this.#sandbox.maxSize);
    const { memoryBytes, cpus, cpuWeight, cpuset, pids } = change;
    try {
      await this.#during("update", async () => {
        await growFor(this.#sandbox, this.id, { limits });
        await this.#sandbox.call("updateContainer", {
          containerId: this.id,
          ...(memoryBytes === undefined ? {} : { memoryBytes: BigInt(memoryBytes) }),
          ...(cpus === undefined ? {} : { cpuQuotaUs: BigInt(cpuQuotaUs(cpus)), cpuPeriodUs: BigInt(CPU_PERIOD_US) }),
          ...(cpuWeight === undefined ? {} : { cpuWeight }),
          ...(cpuset === undefined ? {} : { cpuset }),
          ...(pids === undefined ? {} : { pids }),
        });
        await this.#update({ limits });
      });
    } finally {
      await shrinkToNeed(this.#sandbox);
    }
  }

  /** More room to write to: at once in a guest, otherwise when it next gets into one. */
  async growStorage(sizeBytes: number): Promise<void> {
    if (this.state.inGuest) this.#check("update");
    await this.#during("update", () => growStorage(this.#sandbox, this.id, sizeBytes));
  }

  async stats(): Promise<ContainerStats> {
    this.#check("stats");
    return toContainerStats(await this.#sandbox.call("getContainerStats", { containerId: this.id }));
  }

  /** Runs a further command in it. */
  async exec(
    config: ProcessConfig,
    options: LaunchOptions & { readonly stdin?: boolean | undefined } = {},
  ): Promise<ExecRecord> {
    this.#check("exec");
    return await startFurther(this.#sandbox, this.id, config, options);
  }

  /** Forgets a process that has ended. Releasing what is not there is success. */
  async release(processId: string): Promise<void> {
    if (this.#sandbox.hasMachine && this.state.inGuest) {
      await this.#sandbox.call("releaseProcess", { containerId: this.id, processId });
    }
    await this.#change(
      (state) => {
        const processes = state.processes.filter((each) => each.id !== processId);
        return processes.length === state.processes.length ? state : { ...state, processes };
      },
      { force: true },
    );
  }

  /** Takes note that it runs no more, for whatever reason; the first cause is kept. */
  async markStopped(error: BelljarError | undefined): Promise<void> {
    await this.#change((state) => stoppedState(state, error, this.#sandbox.clock.nowMs()), { force: true });
  }

  /** Takes note that it runs, and waits for its end from now on. */
  async #running(started: { readonly pid: number; readonly startedAtNs: bigint }): Promise<void> {
    await this.#update({
      state: this.state.state === "running" ? "running" : transition("container", this.state.state, "running", this.id),
      pending: undefined,
      starts: this.state.starts + 1,
      pid: started.pid,
      startedAtMs: toMilliseconds(started.startedAtNs),
      status: undefined,
      end: undefined,
      processes: [],
    });
    await this.watch();
  }

  async #leaveGuest(options: CallOptions = {}): Promise<void> {
    await this.#host.copies.stop(this.id);
    await this.#outputs.drain(this.id, { canBeAsked: true }).catch((error: unknown) => {
      this.#sandbox.log.warn("the last output was not kept", { container: this.id, cause: String(error) });
    });
    await leaveGuest(this.#sandbox, this.state, options);
    await this.#sandbox.update((state) => ({
      ...state,
      vm: this.#sandbox.hasMachine ? this.#sandbox.machine.vm.save() : state.vm,
      containers: state.containers.map((each) =>
        each.id === this.id ? { ...each, inGuest: false, frozen: false, processes: [] } : each,
      ),
    }));
  }

  #check(operation: Parameters<typeof checkContainerOperation>[0]): void {
    checkContainerOperation(operation, this.state.state, this.#sandbox.state.state, this.id);
  }

  #pending(operation: ContainerIntent): ContainerState["pending"] {
    return { operation, sinceMs: this.#sandbox.clock.nowMs() };
  }

  /** Intent before, and none afterwards, whatever became of it. */
  async #during(operation: ContainerIntent, work: () => Promise<void>): Promise<void> {
    await this.#update({ pending: this.#pending(operation) });
    try {
      await work();
    } finally {
      await this.#update({ pending: undefined }, { force: true });
    }
  }

  #update(change: Partial<ContainerState>, options: { force?: boolean } = {}): Promise<void> {
    return this.#change((state) => ({ ...state, ...change }), options);
  }

  async #change(change: (state: ContainerState) => ContainerState, options: { force?: boolean } = {}): Promise<void> {
    await changeContainer(this.#sandbox, this.id, change, options);
  }
}
