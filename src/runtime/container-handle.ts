/** One container, as callers hold it: finds it anew for every call, and takes its sandbox's turn for what changes it. */
import { checkSandboxOperation, deleteIfThere, linkLimits, outputUntil } from "../base/index.ts";
import {
  type Container,
  type ContainerLimits,
  type ContainerStats,
  createContainer,
  type Files,
  type ProcessStatus,
  SIGKILL,
  stateOf,
  type TerminalSize,
  toMilliseconds,
  toStatus,
} from "../container/index.ts";
import { guestIdOf } from "../sandbox/index.ts";
import { makerOf } from "./create-sandbox.ts";
import { containerFiles } from "./files.ts";
import { containerInfo } from "./info.ts";
import type {
  AttachOptions,
  CallOptions,
  ContainerCreateConfig,
  ContainerHandle,
  ContainerInfo,
  Containers,
  ExecOptions,
  ExecResult,
  KillOptions,
  LogOptions,
  LogRecord,
  ProcessHandle,
  ProcessInfo,
  StopOptions,
} from "./interface.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";
import { findNamed } from "./names.ts";
import { Processes } from "./processes.ts";
import { findRoot } from "./root-source.ts";

export class RuntimeContainer implements ContainerHandle {
  readonly id: string;
  readonly sandboxId: string;
  readonly name: string;
  readonly #managed: ManagedSandbox;
  /** A handle that came of `create` deletes what it created. */
  readonly #owns: boolean;

  constructor(managed: ManagedSandbox, id: string, owns = false) {
    this.#managed = managed;
    this.#owns = owns;
    this.id = id;
    this.sandboxId = managed.sandbox.id;
    this.name = stateOf(managed.sandbox, id).name;
  }

  async info(): Promise<ContainerInfo> {
    return containerInfo(this.#container.state);
  }

  async start(options: CallOptions & { readonly terminalSize?: TerminalSize | undefined } = {}): Promise<void> {
    await this.#exclusive("start a container of", () => this.#container.start(options), options.signal);
  }

  async stop(options: StopOptions = {}): Promise<void> {
    await this.#exclusive("stop a container of", () => this.#container.stop(options), options.signal);
  }

  async kill(options: KillOptions = {}): Promise<void> {
    const { signal, number = SIGKILL, all = false } = options;
    await this.#managed.awake(() => this.#container.kill(number, all, signal), signal);
  }

  async pause(): Promise<void> {
    await this.#exclusive("pause a container of", () => this.#container.pause());
  }

  async resume(): Promise<void> {
    await this.#exclusive("resume a container of", () => this.#container.resume());
  }

  async delete(options: { readonly force?: boolean | undefined } & CallOptions = {}): Promise<void> {
    await this.#exclusive(
      "delete a container of",
      async () => {
        if (options.force === true) await this.#container.stop({ timeoutMs: 0, force: true });
        await this.#container.delete();
      },
      options.signal,
    );
  }

  async update(limits: ContainerLimits): Promise<void> {
    await this.#exclusive("update a container of", () => this.#container.update(limits));
  }

  async growStorage(sizeBytes: number): Promise<void> {
    await this.#exclusive("grow a container of", () => this.#container.growStorage(sizeBytes));
  }

  async stats(): Promise<ContainerStats> {
    return await this.#container.stats();
  }

  async wait(options: CallOptions = {}): Promise<ProcessStatus> {
    return await this.#processes.wait(options.signal);
  }

  async attach(options: AttachOptions = {}): Promise<ProcessHandle> {
    const { createdAtMs } = this.#managed.state;
    const since = options.sinceRestore === true ? await outputUntil(this.logs(), createdAtMs) : {};
    return await this.#managed.awake(async () => this.#processes.attach({ ...since, ...options }));
  }

  logs(options: LogOptions = {}): AsyncIterable<LogRecord> {
    return this.#processes.logs(options);
  }

  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await this.#managed.awake(() => this.#processes.exec(command, options), options.signal);
  }

  async spawn(command: readonly string[], options: ExecOptions = {}): Promise<ProcessHandle> {
    return await this.#managed.awake(() => this.#processes.spawn(command, options), options.signal);
  }

  async process(processId: string, options: AttachOptions = {}): Promise<ProcessHandle> {
    return this.#processes.find(processId, options);
  }

  /** Those that the agent still has, the first one included. */
  async processes(): Promise<readonly ProcessInfo[]> {
    const { state } = this.#container;
    const { sandbox } = this.#managed;
    if (!state.inGuest || sandbox.state.state === "paused") {
      return state.processes.map(({ id, pid, startedAtMs, tty }) => ({ id, pid, startedAtMs, tty }));
    }
    const { containers } = await sandbox.call("listContainers", {}, { timeoutMs: linkLimits.callTimeoutMs });
    const found = containers.find((container) => container.containerId === guestIdOf(state));
    return (found?.processes ?? []).map((process) => ({
      id: process.processId,
      pid: process.pid,
      startedAtMs: toMilliseconds(process.startedAtNs),
      tty: process.terminal,
      ...(process.end?.ended === true ? { status: toStatus(process.end) } : {}),
    }));
  }

  get files(): Files {
    return containerFiles(this.#managed, this.id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#owns) await deleteIfThere(this);
  }

  get #container(): Container {
    // Says that it was deleted before anything else is said of it.
    stateOf(this.#managed.sandbox, this.id);
    return this.#managed.container(this.id);
  }

  get #processes(): Processes {
    return new Processes(this.#managed, this.#container);
  }

  #exclusive<T>(what: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return this.#managed.awake(() => this.#managed.exclusive(what, work, signal), signal);
  }
}

export class RuntimeContainers implements Containers {
  readonly #managed: ManagedSandbox;

  constructor(managed: ManagedSandbox) {
    this.#managed = managed;
  }

  async create(config: ContainerCreateConfig, options: CallOptions = {}): Promise<ContainerHandle> {
    const { image: imageName, rootfs, name, storage, storageBytes, ...rest } = config;
    const { runtime, sandbox, outputs, copies, mounts } = this.#managed;
    const { signal } = options;
    // Until the state says that it is used.
    await using source = await findRoot(runtime, { image: imageName, rootfs }, signal);
    const { image, handed } = source;
    const create = async (): Promise<Container> => {
      checkSandboxOperation("createContainer", sandbox.state.state, sandbox.id);
      const deps = { sandbox, outputs, copies, mounts, makeDisk: makerOf(runtime) };
      const onRecorded = (): PromiseLike<void> => source[Symbol.asyncDispose]();
      return await createContainer(deps, image, rest, { name, storage, storageBytes, handed, onRecorded, signal });
    };
    const container = await this.#managed.awake(
      () => this.#managed.exclusive("create a container in", create, signal),
      signal,
    );
    return new RuntimeContainer(this.#managed, container.id, true);
  }

  async get(nameOrId: string): Promise<ContainerHandle> {
    const { containers } = this.#managed.state;
    const { id } = findNamed(containers, nameOrId, "container", "CONTAINER_NOT_FOUND");
    return new RuntimeContainer(this.#managed, id);
  }

  async list(): Promise<readonly ContainerInfo[]> {
    return this.#managed.state.containers.map(containerInfo);
  }
}
