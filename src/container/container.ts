/**
 * One OCI container inside a sandbox: its disks, its bundle in the guest, its processes. Creation is all or nothing: what was
 * done is undone in reverse order when a later step fails, and the first error is the one that is told.
 */
import { join } from "node:path";
import type { AgentCaller } from "../agent-client/index.ts";
import { BelljarError, type Log, newId, sandboxLimits } from "../base/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import type { ResolvedImage } from "../images/index.ts";
import type { Sandbox } from "../sandbox/index.ts";
import type { ContainerConfig, ProcessConfig } from "./config.ts";
import { Process, type ProcessStartOptions } from "./process.ts";
import { Rollback } from "./rollback.ts";
import { buildProcess, buildSpec } from "./spec.ts";
import { createWritableDisk } from "./storage.ts";

export interface ContainerDeps {
  readonly sandbox: Sandbox;
  readonly image: ResolvedImage;
  readonly log: Log;
}

interface ContainerParts {
  readonly id: string;
  readonly config: ContainerConfig;
  readonly agent: AgentCaller;
  readonly disks: readonly DiskConfig[];
  readonly command: string | undefined;
}

export class Container {
  readonly id: string;
  readonly config: ContainerConfig;
  readonly #deps: ContainerDeps;
  readonly #agent: AgentCaller;
  /** Of the container's own command, for errors. */
  readonly #command: string | undefined;
  readonly #disks: readonly DiskConfig[];

  private constructor(deps: ContainerDeps, parts: ContainerParts) {
    this.id = parts.id;
    this.config = parts.config;
    this.#deps = deps;
    this.#agent = parts.agent;
    this.#disks = parts.disks;
    this.#command = parts.command;
  }

  /** Plugs the disks while the guest may still be booting, waits for the agent, and has it prepare the bundle. */
  static async create(
    deps: ContainerDeps,
    config: ContainerConfig,
    options: { readonly storageBytes?: number | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Container> {
    const { sandbox, image } = deps;
    const id = newId();
    const spec = buildSpec(image.config, { ...config, hostname: sandbox.settings.hostname });
    const rollback = new Rollback(deps.log);
    try {
      const writable: DiskConfig = {
        serial: `w-${id}`,
        path: join(sandbox.disksDir, `${id}.raw`),
        format: "raw",
        readOnly: false,
      };
      const layers = image.layers.map(
        (layer): DiskConfig => ({ serial: layerSerial(layer.diffId), path: layer.path, format: "raw", readOnly: true }),
      );
      await createWritableDisk(
        writable.path,
        options.storageBytes ?? sandboxLimits.storageDefaultBytes,
        options.signal,
      );
      const disks = [...layers, writable];
      for (const disk of disks) {
        await sandbox.whileAlive(sandbox.plugDisk(disk));
        rollback.add(`unplug disk ${disk.serial}`, () => sandbox.unplugDisk(disk.serial));
      }
      const agent = await sandbox.agent(options.signal);
      await sandbox.whileAlive(
        agent.call(
          "createContainer",
          {
            containerId: id,
            specJson: Buffer.from(JSON.stringify(spec)),
            rootfs: {
              layers: layers.map((layer) => ({ serial: layer.serial })),
              writable: { serial: writable.serial },
            },
            user: config.user ?? image.config.user ?? "",
          },
          { signal: options.signal },
        ),
      );
      return new Container(deps, { id, config, agent, disks, command: spec.process.args[0] });
    } catch (error) {
      await rollback.run();
      throw error;
    }
  }

  /** Runs the container's own command. @throws BelljarError `COMMAND_NOT_FOUND`, `COMMAND_NOT_EXECUTABLE`, ... */
  async start(options: ProcessStartOptions): Promise<Process> {
    const started = await this.#launch(
      this.#command,
      this.#agent.call(
        "startContainer",
        { containerId: this.id, stdin: options.stdin === true, ...terminalSizeField(options) },
        { signal: options.signal },
      ),
    );
    return this.#process("", started, this.config.tty === true, options.stdin === true);
  }

  /** Runs a further command in the container. */
  async exec(config: ProcessConfig, options: ProcessStartOptions): Promise<Process> {
    const processId = newId();
    const image = this.#deps.image.config;
    const process = buildProcess(image, {
      ...this.config,
      ...config,
      entrypoint: [],
      hostname: this.#deps.sandbox.settings.hostname,
    });
    const started = await this.#launch(
      process.args[0],
      this.#agent.call(
        "execProcess",
        {
          containerId: this.id,
          processId,
          processJson: Buffer.from(JSON.stringify(process)),
          user: config.user ?? this.config.user ?? image.user ?? "",
          stdin: options.stdin === true,
          ...terminalSizeField(options),
        },
        { signal: options.signal },
      ),
    );
    return this.#process(processId, started, config.tty === true, options.stdin === true);
  }

  /** Ends what still runs and takes the container out of the sandbox; its writable disk goes with the sandbox. */
  async remove(): Promise<void> {
    await this.#deps.sandbox.whileAlive(this.#agent.call("removeContainer", { containerId: this.id }));
    for (const disk of this.#disks) await this.#deps.sandbox.unplugDisk(disk.serial);
  }

  /** The runtime in the guest does not always say which command it could not execute. */
  async #launch<T>(command: string | undefined, call: Promise<T>): Promise<T> {
    try {
      return await this.#deps.sandbox.whileAlive(call);
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      if (error.reason !== "COMMAND_NOT_FOUND" && error.reason !== "COMMAND_NOT_EXECUTABLE") throw error;
      const what = error.reason === "COMMAND_NOT_FOUND" ? "does not exist in the container" : "cannot be executed";
      throw new BelljarError(error.reason, `the command ${JSON.stringify(command)} ${what}`, { cause: error });
    }
  }

  #process(processId: string, started: { readonly pid: number }, tty: boolean, stdin: boolean): Process {
    if (started.pid < 1) throw new BelljarError("AGENT_PROTOCOL", "the agent started a process without a pid");
    return new Process(
      { agent: this.#agent, whileAlive: (work) => this.#deps.sandbox.whileAlive(work) },
      { containerId: this.id, processId, pid: started.pid, tty, stdin },
    );
  }
}

function terminalSizeField(options: ProcessStartOptions): { terminalSize?: { columns: number; rows: number } } {
  return options.terminalSize === undefined ? {} : { terminalSize: { ...options.terminalSize } };
}

/** Serial numbers have at most 20 characters; 72 bits of the diff id tell a sandbox's layers apart. */
function layerSerial(diffId: string): string {
  return `l-${diffId.replace(/^sha256:/, "").slice(0, 18)}`;
}
