/**
 * How processes of one container are started: their files below its directory, their user from its own root file system. Those files are
 * in memory and small: what is done with them is done at once, since handing it to another thread takes longer.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Cgroups } from "./cgroups.ts";
import { ContainerFile } from "./container-files.ts";
import type { Place } from "./container-place.ts";
import { type PreparedDeps, PreparedProcess, type StartDeps, writeProcess } from "./prepared-process.ts";
import { GuestProcess, type ProcessOptions } from "./process.ts";
import { asObject, completeProcess, completeSpec, type JsonObject, type TerminalSize, wantsTerminal } from "./spec.ts";
import { type ResolvedUser, resolveUser } from "./user.ts";

export interface LaunchDeps extends PreparedDeps {
  readonly cgroups: Pick<Cgroups, "cgroupsPath" | "oomKills">;
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

type Prepared = Pick<ProcessOptions, "stdin" | "terminal" | "what">;

export class Launcher {
  readonly #deps: LaunchDeps;
  readonly #containerId: string;
  readonly #place: Place;
  readonly #passwd: ContainerFile;
  readonly #group: ContainerFile;
  #prepared: PreparedProcess | undefined;

  constructor(deps: LaunchDeps, containerId: string, place: Place) {
    this.#deps = deps;
    this.#containerId = containerId;
    this.#place = place;
    this.#passwd = new ContainerFile(place.rootfs, "/etc/passwd");
    this.#group = new ContainerFile(place.rootfs, "/etc/group");
  }

  /** The first process, as the configuration says. */
  async init(spec: JsonObject, user: string, options: StartOptions): Promise<GuestProcess> {
    return await this.#launch("init", async (dir) => {
      const process = asObject(spec["process"], "the configuration's process");
      const complete = completeSpec(spec, {
        process: completeProcess(process, await this.#lookUp(user), options.terminalSize),
        rootfs: this.#place.rootfs,
        cgroupsPath: this.#deps.cgroups.cgroupsPath(this.#containerId),
      });
      writeFileSync(join(dir, "config.json"), JSON.stringify(complete));
      return { what: { bundle: dir }, terminal: wantsTerminal(process), stdin: options.stdin };
    });
  }

  /** A further process in a container that runs. */
  async exec(options: ExecOptions): Promise<GuestProcess> {
    const complete = await this.#complete(options);
    const prepared = this.#prepared;
    if (prepared?.fits(complete) !== true) return await this.#further(options, complete);
    this.#prepared = undefined;
    try {
      return await this.#further(options, complete, prepared.as(complete));
    } catch (error) {
      if (prepared.hasBecome) throw error;
      // What it cannot become (a command that is not there, for one) crun says better.
      await prepared.end();
      return await this.#further(options, complete);
    }
  }

  /** Has a process wait for the next command that `exec` is asked for as the container's own user. Success when one waits already. */
  async prepare(spec: JsonObject, user: string): Promise<void> {
    if (this.#prepared?.isOver === false) return;
    const own = completeProcess(
      asObject(spec["process"], "the configuration's process"),
      await this.#lookUp(user),
      undefined,
    );
    const dir = join(this.#place.dir, "prepared");
    mkdirSync(dir, { mode: 0o700 });
    try {
      this.#prepared = await PreparedProcess.start(this.#deps, { containerId: this.#containerId, dir, process: own });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }

  /** Nothing waits any more when it resolves. */
  async endPrepared(): Promise<void> {
    await this.#prepared?.end();
  }

  /** A program of the container, run as its first process is, without a terminal. */
  async hook(
    spec: JsonObject,
    user: string,
    program: string,
    environment: Readonly<Record<string, string>>,
  ): Promise<GuestProcess> {
    const own = asObject(spec["process"], "the configuration's process");
    const env = Array.isArray(own["env"]) ? own["env"] : [];
    const added = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    const process = { ...own, args: [program], env: [...env, ...added], terminal: false };
    const processId = `hook-${basename(program)}`;
    const options = { processId, process, user, stdin: false, terminalSize: undefined };
    // Never by the process that waits: that is for whoever uses the container.
    return await this.#further(options, await this.#complete(options));
  }

  async #complete({ process, user, terminalSize }: ExecOptions): Promise<JsonObject> {
    return completeProcess(process, await this.#lookUp(user), terminalSize);
  }

  async #further(options: ExecOptions, complete: JsonObject, deps?: StartDeps): Promise<GuestProcess> {
    const { processId, process, stdin } = options;
    return await this.#launch(
      `exec-${processId}`,
      async (dir) => ({
        what: { processFile: writeProcess(dir, complete) },
        terminal: wantsTerminal(process),
        stdin,
      }),
      deps,
    );
  }

  async #launch(
    name: string,
    prepare: (dir: string) => Promise<Prepared>,
    { pipes, runtime }: StartDeps = this.#deps,
  ): Promise<GuestProcess> {
    const dir = join(this.#place.dir, name);
    mkdirSync(dir, { mode: 0o700 });
    try {
      const oomKills = (): Promise<number> => this.#deps.cgroups.oomKills(this.#containerId);
      const prepared = await prepare(dir);
      return await GuestProcess.start(
        { pipes, runtime, oomKills },
        { containerId: this.#containerId, dir, ...prepared },
      );
    } catch (error) {
      rmSync(dir, { recursive: true, force: true });
      throw error;
    }
  }

  async #lookUp(user: string): Promise<ResolvedUser> {
    return resolveUser(user, await this.#passwd.read(), await this.#group.read());
  }
}
