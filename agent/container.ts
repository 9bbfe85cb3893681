/**
 * One container in the guest: its root file system, its bundle, its processes. It is removed as a whole, whatever state it is in;
 * a start that is under way is waited for and then undone.
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { sandboxLimits } from "../src/base/limits.ts";
import { type LimitChanges, withLimits } from "./cgroup-limits.ts";
import type { ContainerStats } from "./cgroup-stats.ts";
import type { Cgroups } from "./cgroups.ts";
import { readContainerFile } from "./container-files.ts";
import { type ContainerOptions, type Place, type PlaceDeps, preparePlace, removePlace } from "./container-place.ts";
import type { PipeMaker } from "./pipes.ts";
import { GuestProcess } from "./process.ts";
import { INIT, ProcessTable } from "./process-table.ts";
import type { ContainerRuntime } from "./runtime.ts";
import { SIGKILL, sendSignal, signalProcess } from "./signals.ts";
import { asObject, completeProcess, completeSpec, type JsonObject, type TerminalSize, wantsTerminal } from "./spec.ts";
import { type ResolvedUser, resolveUser } from "./user.ts";

export interface ContainerDeps extends PlaceDeps {
  readonly pipes: Pick<PipeMaker, "open">;
  readonly runtime: ContainerRuntime;
  readonly cgroups: Pick<
    Cgroups,
    "create" | "cgroupsPath" | "oomKills" | "kill" | "pids" | "freeze" | "thaw" | "update" | "stats" | "remove"
  >;
}

export interface StartOptions {
  readonly stdin: boolean;
  readonly terminalSize: TerminalSize | undefined;
}

export interface ExecOptions extends StartOptions {
  readonly processId: string;
  readonly process: JsonObject;
  readonly user: string;
}

export type ContainerPhase = "ready" | "running" | "paused" | "stopped";

interface PreparedLaunch {
  readonly what: { readonly bundle: string } | { readonly processFile: string };
  readonly terminal: boolean;
  readonly stdin: boolean;
}

export class GuestContainer {
  readonly id: string;
  readonly processes: ProcessTable;
  readonly #deps: ContainerDeps;
  readonly #options: ContainerOptions;
  readonly #place: Place;
  #spec: JsonObject;
  #paused = false;
  /** Its init process has ended, and may have been released since. */
  #stopped = false;
  #removing = false;

  private constructor(deps: ContainerDeps, options: ContainerOptions, place: Place) {
    this.id = options.id;
    this.processes = new ProcessTable(options.id);
    this.#deps = deps;
    this.#options = options;
    this.#place = place;
    this.#spec = place.spec;
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
    const init = await this.#launch(INIT, "init", async (dir) => {
      const process = asObject(this.#spec["process"], "the configuration's process");
      const complete = completeSpec(this.#spec, {
        process: completeProcess(process, await this.#lookUp(this.#options.user), options.terminalSize),
        rootfs: this.#place.rootfs,
        cgroupsPath: this.#deps.cgroups.cgroupsPath(this.id),
      });
      await writeFile(join(dir, "config.json"), JSON.stringify(complete));
      return { what: { bundle: dir }, terminal: wantsTerminal(process), stdin: options.stdin };
    });
    void init.ended.then(async () => {
      this.#stopped = true;
      // In a PID namespace of its own the kernel has done so already.
      if (this.#options.sharePids) await this.#deps.cgroups.kill(this.id).catch(() => {});
    });
    return init;
  }

  async exec(options: ExecOptions): Promise<GuestProcess> {
    if (this.processes.has(options.processId)) {
      throw new BelljarError("INVALID_ARGUMENT", `the process id ${options.processId} is in use`);
    }
    await this.processes.find(INIT);
    this.#demand("running");
    return await this.#launch(options.processId, `exec-${options.processId}`, async (dir) => {
      const processFile = join(dir, "process.json");
      const complete = completeProcess(options.process, await this.#lookUp(options.user), options.terminalSize);
      await writeFile(processFile, JSON.stringify(complete));
      return { what: { processFile }, terminal: wantsTerminal(options.process), stdin: options.stdin };
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
  async pause(): Promise<void> {
    if (this.#paused) return;
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
  }

  /** Success when nothing is paused. */
  async resume(): Promise<void> {
    if (this.phase !== "running") this.#demand("paused");
    await this.#deps.cgroups.thaw(this.id);
    this.#paused = false;
  }

  /** All of them or none. @throws BelljarError `INVALID_ARGUMENT`, `INVALID_TRANSITION` */
  async update(changes: LimitChanges): Promise<void> {
    await this.processes.find(INIT);
    if (this.phase === "ready") this.#spec = withLimits(this.#spec, changes);
    else if (this.phase !== "stopped") await this.#deps.cgroups.update(this.id, changes);
    else this.#demand("running");
  }

  async stats(): Promise<ContainerStats> {
    return await this.#deps.cgroups.stats(this.id);
  }

  /** New names for a container that may run. */
  async refreshNames(): Promise<void> {
    await this.#deps.names.write(this.#place.filesDir);
  }

  /** Kills what runs, unmounts, forgets. May be repeated when it fails. */
  async remove(): Promise<void> {
    this.#removing = true;
    for (const [, process] of await this.processes.all()) {
      if (process.end !== undefined) continue;
      await this.#deps.cgroups.kill(this.id);
      sendSignal(process.pid, SIGKILL);
      await Promise.race([process.ended, sleep(sandboxLimits.stopGraceMs, undefined, { ref: false })]);
      if (process.end === undefined) {
        throw new BelljarError("AGENT_FAILED", `a process of ${this.id} is still there after SIGKILL`);
      }
    }
    await removePlace(this.#deps, this.#options, this.#place.dir);
  }

  #demand(phase: ContainerPhase): void {
    if (this.phase === phase) return;
    throw new BelljarError("INVALID_TRANSITION", `the container ${this.id} is ${this.phase}, not ${phase}`);
  }

  async #launch(
    processId: string,
    name: string,
    prepare: (dir: string) => Promise<PreparedLaunch>,
  ): Promise<GuestProcess> {
    if (this.#removing) throw new BelljarError("INVALID_TRANSITION", `the container ${this.id} is being removed`);
    return await this.processes.add(processId, async () => {
      const dir = join(this.#place.dir, name);
      await mkdir(dir, { mode: 0o700 });
      try {
        const { pipes, runtime, cgroups } = this.#deps;
        const oomKills = (): Promise<number> => cgroups.oomKills(this.id);
        const prepared = await prepare(dir);
        return await GuestProcess.start({ pipes, runtime, oomKills }, { containerId: this.id, dir, ...prepared });
      } catch (error) {
        await rm(dir, { recursive: true, force: true });
        throw error;
      }
    });
  }

  async #lookUp(user: string): Promise<ResolvedUser> {
    const passwd = await readContainerFile(this.#place.rootfs, "/etc/passwd");
    const group = await readContainerFile(this.#place.rootfs, "/etc/group");
    return resolveUser(user, passwd, group);
  }
}
