/**
 * One container in the guest: its root file system, its bundle, its processes. It is removed as a whole, whatever state it is in;
 * a start that is under way is waited for and then undone.
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { sandboxLimits, streamLimits } from "../src/base/limits.ts";
import type { Cgroups } from "./cgroups.ts";
import { readContainerFile } from "./container-files.ts";
import { needsDefaultAction } from "./default-action.ts";
import type { PipeMaker } from "./pipes.ts";
import { GuestProcess } from "./process.ts";
import type { RootfsDisks, RootfsMounter } from "./rootfs.ts";
import type { ContainerRuntime } from "./runtime.ts";
import { asObject, completeProcess, completeSpec, type JsonObject, type TerminalSize, wantsTerminal } from "./spec.ts";
import { type ResolvedUser, resolveUser } from "./user.ts";

export interface ContainerDeps {
  readonly pipes: Pick<PipeMaker, "open">;
  readonly runtime: ContainerRuntime;
  readonly mounter: RootfsMounter;
  readonly cgroups: Pick<Cgroups, "create" | "cgroupsPath" | "oomKills" | "kill" | "pids" | "remove">;
  /** Each container has a directory below it. */
  readonly containersDir: string;
}

export interface ContainerOptions {
  readonly id: string;
  readonly spec: JsonObject;
  readonly disks: RootfsDisks;
  readonly user: string;
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

/** The init process's id. */
export const INIT = "";

export class GuestContainer {
  readonly #deps: ContainerDeps;
  readonly #options: ContainerOptions;
  readonly #dir: string;
  readonly #rootfs: string;
  /** By process id; a promise from the moment that a start begins, so that ids cannot be used twice. */
  readonly #processes = new Map<string, Promise<GuestProcess>>();
  #removing = false;

  private constructor(deps: ContainerDeps, options: ContainerOptions, dir: string, rootfs: string) {
    this.#deps = deps;
    this.#options = options;
    this.#dir = dir;
    this.#rootfs = rootfs;
  }

  /** Mounts the root file system; leaves nothing when it fails. */
  static async create(deps: ContainerDeps, options: ContainerOptions): Promise<GuestContainer> {
    asObject(options.spec["process"], "the configuration's process");
    const dir = join(deps.containersDir, options.id);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    try {
      const rootfs = await deps.mounter.mount(dir, options.disks);
      await deps.cgroups.create(options.id);
      return new GuestContainer(deps, options, dir, rootfs);
    } catch (error) {
      await deps.mounter.unmount(dir, { ...options.disks, layers: [] }).catch(() => {});
      await rm(dir, { recursive: true, force: true }).catch(() => {});
      throw error;
    }
  }

  get processCount(): number {
    return this.#processes.size;
  }

  async start(options: StartOptions): Promise<GuestProcess> {
    if (this.#processes.has(INIT)) {
      throw new BelljarError("INVALID_TRANSITION", `the container ${this.#options.id} was started before`);
    }
    const { id, spec, user } = this.#options;
    return await this.#launch(INIT, "init", async (dir) => {
      const process = asObject(spec["process"], "the configuration's process");
      const cgroupsPath = this.#deps.cgroups.cgroupsPath(id);
      const complete = completeSpec(spec, {
        process: completeProcess(process, await this.#lookUp(user), options.terminalSize),
        rootfs: this.#rootfs,
        cgroupsPath,
      });
      await writeFile(join(dir, "config.json"), JSON.stringify(complete));
      return { what: { bundle: dir }, terminal: wantsTerminal(process), stdin: options.stdin };
    });
  }

  async exec(options: ExecOptions): Promise<GuestProcess> {
    if (this.#processes.has(options.processId)) {
      throw new BelljarError("INVALID_ARGUMENT", `the process id ${options.processId} is in use`);
    }
    const init = await this.#processes.get(INIT)?.catch(() => undefined);
    if (init === undefined || init.end !== undefined) {
      throw new BelljarError("INVALID_TRANSITION", `the container ${this.#options.id} is not running`);
    }
    return await this.#launch(options.processId, `exec-${options.processId}`, async (dir) => {
      const processFile = join(dir, "process.json");
      const complete = completeProcess(options.process, await this.#lookUp(options.user), options.terminalSize);
      await writeFile(processFile, JSON.stringify(complete));
      return { what: { processFile }, terminal: wantsTerminal(options.process), stdin: options.stdin };
    });
  }

  /** @throws BelljarError `PROCESS_NOT_FOUND`; what the start of the process threw */
  async process(processId: string): Promise<GuestProcess> {
    const found = this.#processes.get(processId);
    if (found !== undefined) return await found;
    const which = processId === INIT ? "no process: it was not started" : `no process ${processId}`;
    throw new BelljarError("PROCESS_NOT_FOUND", `the container ${this.#options.id} has ${which}`);
  }

  /** A process that is gone is success. */
  async signal(processId: string, signal: number, all: boolean): Promise<void> {
    if (all) {
      if (signal === SIGKILL) await this.#deps.cgroups.kill(this.#options.id);
      for (const pid of await this.#deps.cgroups.pids(this.#options.id)) sendSignal(pid, signal);
    }
    const process = await this.process(processId);
    if (process.end !== undefined) return;
    if (await needsDefaultAction(process.pid, signal)) process.endBy(signal);
    else sendSignal(process.pid, signal);
  }

  /** Kills what runs, unmounts, forgets. May be repeated when it fails. */
  async remove(): Promise<void> {
    this.#removing = true;
    for (const starting of this.#processes.values()) {
      const process = await starting.catch(() => undefined);
      if (process === undefined || process.end !== undefined) continue;
      await this.#deps.cgroups.kill(this.#options.id);
      sendSignal(process.pid, SIGKILL);
      await Promise.race([process.ended, sleep(sandboxLimits.stopGraceMs, undefined, { ref: false })]);
      if (process.end === undefined) {
        throw new BelljarError("AGENT_FAILED", `a process of ${this.#options.id} is still there after SIGKILL`);
      }
    }
    await this.#deps.cgroups.remove(this.#options.id);
    await this.#deps.mounter.unmount(this.#dir, this.#options.disks);
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #launch(
    processId: string,
    name: string,
    prepare: (dir: string) => Promise<{
      what: { bundle: string } | { processFile: string };
      terminal: boolean;
      stdin: boolean;
    }>,
  ): Promise<GuestProcess> {
    if (this.#removing) {
      throw new BelljarError("INVALID_TRANSITION", `the container ${this.#options.id} is being removed`);
    }
    const starting = (async () => {
      const dir = join(this.#dir, name);
      await mkdir(dir, { mode: 0o700 });
      try {
        const prepared = await prepare(dir);
        const { pipes, runtime, cgroups } = this.#deps;
        const oomKills = (): Promise<number> => cgroups.oomKills(this.#options.id);
        return await GuestProcess.start(
          { pipes, runtime, oomKills },
          { containerId: this.#options.id, dir, ...prepared },
        );
      } catch (error) {
        await rm(dir, { recursive: true, force: true });
        throw error;
      }
    })();
    this.#processes.set(processId, starting);
    try {
      return await starting;
    } catch (error) {
      // It never ran: the id is free again, and the start may be tried anew.
      this.#processes.delete(processId);
      throw error;
    }
  }

  async #lookUp(user: string): Promise<ResolvedUser> {
    const passwd = await readContainerFile(this.#rootfs, "/etc/passwd");
    const group = await readContainerFile(this.#rootfs, "/etc/group");
    return resolveUser(user, passwd, group);
  }
}

const SIGKILL = 9;

function sendSignal(pid: number, signal: number): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!hasErrno(error, "ESRCH")) throw error;
  }
}

/** How many processes all containers together may have had; ended ones count until their container is removed. */
export function checkProcessCount(containers: Iterable<GuestContainer>): void {
  let count = 0;
  for (const container of containers) count += container.processCount;
  if (count < streamLimits.processesMax) return;
  throw new BelljarError("AGENT_FAILED", `the sandbox has ${count} processes, as many as it may have`);
}
