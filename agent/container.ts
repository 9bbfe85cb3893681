/**
 * One container in the guest: its root file system, its bundle, its processes. It is removed as a whole, whatever state it is in;
 * a start that is under way is waited for and then undone.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { sandboxLimits } from "../src/base/limits.ts";
import type { CopiedEntry } from "../src/protocol/index.ts";
import type { PlannedFile } from "../src/protocol/wake.ts";
import { type LimitChanges, withLimits } from "./cgroup-limits.ts";
import type { ContainerStats } from "./cgroup-stats.ts";
import type { Cgroups } from "./cgroups.ts";
import { type ContainerOptions, type Place, type PlaceDeps, preparePlace, removePlace } from "./container-place.ts";
import { Files } from "./files.ts";
import type { HookPlace } from "./hooks.ts";
import { type ExecOptions, type LaunchDeps, Launcher, type StartOptions } from "./launcher.ts";
import type { GuestProcess } from "./process.ts";
import { INIT, ProcessTable } from "./process-table.ts";
import { SIGKILL, sendSignal, signalProcess } from "./signals.ts";
import type { JsonObject } from "./spec.ts";
import { Turns } from "./turns.ts";

export interface ContainerDeps extends PlaceDeps, LaunchDeps {
  readonly procDir: string;
  readonly cgroups: Pick<
    Cgroups,
    | "create"
    | "cgroupsPath"
    | "oomKills"
    | "kill"
    | "pids"
    | "freeze"
    | "freezeAll"
    | "thaw"
    | "thawAll"
    | "restPlan"
    | "thawPlan"
    | "update"
    | "stats"
    | "remove"
  >;
}

export type ContainerPhase = "ready" | "running" | "paused" | "stopped";

export class GuestContainer {
  readonly id: string;
  readonly processes: ProcessTable;
  readonly files: Files;
  readonly #deps: ContainerDeps;
  readonly #options: ContainerOptions;
  readonly #place: Place;
  readonly #launcher: Launcher;
  #spec: JsonObject;
  #paused = false;
  /** Its init process has ended, and may have been released since. */
  #stopped = false;
  /** Pausing, resuming and changing limits; a call that is repeated waits for the first. */
  readonly #turns = new Turns();
  #removal: Promise<void> | undefined;

  private constructor(deps: ContainerDeps, options: ContainerOptions, place: Place) {
    this.id = options.id;
    this.processes = new ProcessTable(options.id);
    this.#deps = deps;
    this.#options = options;
    this.#place = place;
    this.#launcher = new Launcher(deps, options.id, place);
    this.#spec = place.spec;
    this.files = new Files({ rootfs: place.rootfs, procDir: deps.procDir, pid: () => this.#initPid });
  }

  /** Mounts the root file system; leaves nothing when it fails. */
  static async create(deps: ContainerDeps, options: ContainerOptions): Promise<GuestContainer> {
    return new GuestContainer(deps, options, await preparePlace(deps, options));
  }

  get phase(): ContainerPhase {
    if (this.#stopped) return "stopped";
    if (!this.processes.has(INIT)) return "ready";
    return this.#paused ? "paused" : "running";
  }

  async start(options: StartOptions): Promise<GuestProcess> {
    if (this.phase !== "ready") {
      throw new BelljarError("INVALID_TRANSITION", `the container ${this.id} was started before`);
    }
    const { user, sharePids } = this.#options;
    const init = await this.#launch(INIT, () => this.#launcher.init(this.#spec, user, options));
    void init.ended.then(async () => {
      this.#stopped = true;
      // In a PID namespace of its own the kernel has done so already.
      if (sharePids) await this.#deps.cgroups.kill(this.id).catch(() => {});
    });
    return init;
  }

  async exec(options: ExecOptions): Promise<GuestProcess> {
    if (this.processes.has(options.processId)) {
      throw new BelljarError("INVALID_ARGUMENT", `the process id ${options.processId} is in use`);
    }
    await this.processes.find(INIT);
    this.#demand("running");
    return await this.#launch(options.processId, () => this.#launcher.exec(options));
  }

  /** Has a process wait for its next command. */
  prepareProcess(): Promise<void> {
    return this.#turns.take(async () => {
      if (this.#removal !== undefined) this.#refuseRemoved();
      await this.processes.find(INIT);
      this.#demand("running");
      await this.#launcher.prepare(this.#spec, this.#options.user);
    });
  }

  /** A process that is gone is success, and so is one that has not come yet: nothing is there to be signalled. */
  async signal(processId: string, signal: number, all: boolean): Promise<void> {
    if (!all) {
      const process = await this.processes.find(processId);
      if (process !== undefined) await signalProcess(process, signal);
      return;
    }
    if (signal === SIGKILL) await this.#deps.cgroups.kill(this.id);
    const started = (await this.processes.all()).map(([, process]) => process);
    const pids = new Set(await this.#deps.cgroups.pids(this.id));
    for (const process of started) {
      pids.delete(process.pid);
      await signalProcess(process, signal);
    }
    for (const pid of pids) sendSignal(pid, signal);
  }

  /** Resolves when every process stands still. Success when they do already. */
  pause(): Promise<void> {
    return this.#turns.take(async () => {
      if (this.phase === "paused") return;
      this.#demand("running");
      // From here on no exec begins; those under way are waited for, since their set-up cannot end in a frozen group.
      this.#paused = true;
      try {
        await this.processes.all();
        await this.#deps.cgroups.freeze(this.id);
      } catch (error) {
        this.#paused = false;
        throw error;
      }
    });
  }

  /** Success when nothing is paused. */
  resume(): Promise<void> {
    return this.#turns.take(async () => {
      if (this.phase !== "running") this.#demand("paused");
      await this.#deps.cgroups.thaw(this.id);
      this.#paused = false;
    });
  }

  /** Makes room where it writes. */
  growStorage(sizeBytes: number): Promise<void> {
    return this.#turns.take(() => this.#deps.mounter.grow(this.#place.dir, this.#options.disks, sizeBytes));
  }

  /** All of them or none. @throws BelljarError `INVALID_ARGUMENT`, `INVALID_TRANSITION` */
  update(changes: LimitChanges): Promise<void> {
    return this.#turns.take(async () => {
      await this.processes.find(INIT);
      if (this.phase === "ready") this.#spec = withLimits(this.#spec, changes);
      else if (this.phase !== "stopped") await this.#deps.cgroups.update(this.id, changes);
      else this.#demand("running");
    });
  }

  async stats(): Promise<ContainerStats> {
    return await this.#deps.cgroups.stats(this.id);
  }

  /** The files of names that it has. */
  namesPlan(): readonly PlannedFile[] {
    return this.#deps.names.plan(this.#place.filesDir);
  }

  /** New names for a container that may run. */
  async refreshNames(): Promise<void> {
    await this.#deps.names.write(this.#place.filesDir);
  }

  /** Where its hooks are run; undefined unless it runs. */
  hookPlace(): HookPlace | undefined {
    const pid = this.#initPid;
    if (pid === undefined || this.phase !== "running") return undefined;
    return {
      containerId: this.id,
      root: `${this.#deps.procDir}/${pid}/root`,
      launch: (program, environment) => this.#launcher.hook(this.#spec, this.#options.user, program, environment),
    };
  }

  /** What the host has copied in looks like this now. */
  async copyIn(key: string, entries: readonly CopiedEntry[]): Promise<void> {
    await this.#place.copies.apply(key, entries);
  }

  /** Kills what runs, unmounts, forgets. Joins a removal under way; may be repeated when it fails. */
  remove(): Promise<void> {
    this.#removal ??= this.#remove().catch((error: unknown) => {
      this.#removal = undefined;
      throw error;
    });
    return this.#removal;
  }

  async #remove(): Promise<void> {
    for (const [, process] of await this.processes.all()) {
      if (process.end !== undefined) continue;
      await this.#deps.cgroups.kill(this.id);
      sendSignal(process.pid, SIGKILL);
      await Promise.race([process.ended, sleep(sandboxLimits.stopGraceMs, undefined, { ref: false })]);
      if (process.end === undefined) {
        throw new BelljarError("AGENT_FAILED", `a process of ${this.id} is still there after SIGKILL`);
      }
    }
    await Promise.race([
      this.#turns.take(() => this.#launcher.endPrepared()),
      sleep(sandboxLimits.stopGraceMs, undefined, { ref: false }),
    ]);
    await this.files.close();
    await removePlace(this.#deps, this.#options, this.#place.dir);
  }

  get #initPid(): number | undefined {
    const init = this.processes.settled().get(INIT);
    return init === undefined || init.end !== undefined ? undefined : init.pid;
  }

  #demand(phase: ContainerPhase): void {
    if (this.phase === phase) return;
    throw new BelljarError("INVALID_TRANSITION", `the container ${this.id} is ${this.phase}, not ${phase}`);
  }

  async #launch(processId: string, start: () => Promise<GuestProcess>): Promise<GuestProcess> {
    if (this.#removal !== undefined) this.#refuseRemoved();
    return await this.processes.add(processId, start);
  }

  #refuseRemoved(): never {
    throw new BelljarError("INVALID_TRANSITION", `the container ${this.id} is being removed`);
  }
}
