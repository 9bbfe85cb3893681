/** A sandbox behind the daemon. Disposing of the handle that created it deletes it. */
import { deleteIfThere } from "../../base/index.ts";
import type { Files } from "../../container/index.ts";
import {
  fromCheckpointInfo,
  fromEvent,
  fromSandboxInfo,
  fromSandboxStats,
  toCheckpointRequest,
  toForkRequest,
  toRewindRequest,
} from "../../daemon/index.ts";
import type {
  CallOptions,
  CheckpointInfo,
  CheckpointOptions,
  ContainerHandle,
  Containers,
  Devices,
  ExecOptions,
  ExecResult,
  ForkOptions,
  ProcessHandle,
  RewindOptions,
  SandboxEvent,
  SandboxHandle,
  SandboxInfo,
  SandboxNetwork,
  SandboxResources,
  SandboxStats,
  StopOptions,
} from "../../runtime/index.ts";
import { ConnectedContainer } from "./container.ts";
import { ConnectedContainers } from "./containers.ts";
import type { DaemonLink, MakeCall } from "./daemon-link.ts";
import { ConnectedDevices } from "./devices.ts";
import { ConnectedNetwork } from "./network.ts";

export class ConnectedSandbox implements SandboxHandle {
  readonly id: string;
  readonly containers: Containers;
  readonly devices: Devices;
  readonly network: SandboxNetwork;
  readonly main: ContainerHandle;
  readonly #link: DaemonLink;
  readonly #isOwned: boolean;
  #name: string;
  #isDeleted = false;

  constructor(link: DaemonLink, info: SandboxInfo, isOwned: boolean) {
    this.#link = link;
    this.id = info.id;
    this.#name = info.name;
    this.containers = new ConnectedContainers(link, info);
    this.devices = new ConnectedDevices(link, info.id, () => this.info());
    this.network = new ConnectedNetwork(link, info.id);
    // One whose state cannot be read may have none to name: the daemon says what is wrong when it is used.
    this.main = new ConnectedContainer(link, info.id, info.containers[0] ?? { id: "", name: "" });
    this.#isOwned = isOwned;
  }

  get name(): string {
    return this.#name;
  }

  async info(): Promise<SandboxInfo> {
    const answer = await this.#link.call({ what: `${this.#title} was asked for`, repeatable: true }, (clients, call) =>
      clients.sandbox.getSandbox({ sandbox: this.id }, call),
    );
    return fromSandboxInfo(answer.sandbox);
  }

  async start({ signal }: CallOptions = {}): Promise<void> {
    await this.#change("was being started", signal, (clients, call) =>
      clients.sandbox.startSandbox({ sandbox: this.id }, call),
    );
  }

  async stop({ signal, timeoutMs, force = false }: StopOptions = {}): Promise<void> {
    const timeout = timeoutMs === undefined ? {} : { timeoutMs };
    // Stopping what is stopped is success, so it can be asked for again.
    await this.#link.call(
      { what: `${this.#title} was being stopped`, repeatable: true, signal, timeoutMs: 0 },
      (clients, call) => clients.sandbox.stopSandbox({ sandbox: this.id, ...timeout, force }, call),
    );
  }

  async pause(): Promise<void> {
    await this.#change("was being paused", undefined, (clients, call) =>
      clients.sandbox.pauseSandbox({ sandbox: this.id }, call),
    );
  }

  async resume(): Promise<void> {
    await this.#change("was being resumed", undefined, (clients, call) =>
      clients.sandbox.resumeSandbox({ sandbox: this.id }, call),
    );
  }

  async hibernate({ signal }: CallOptions = {}): Promise<void> {
    // One that is hibernated is success, so it can be asked for again; as waking can.
    await this.#link.call(
      { what: `${this.#title} was being hibernated`, repeatable: true, signal, timeoutMs: 0 },
      (clients, call) => clients.sandbox.hibernateSandbox({ sandbox: this.id }, call),
    );
  }

  async wake({ signal }: CallOptions = {}): Promise<void> {
    await this.#link.call(
      { what: `${this.#title} was being woken`, repeatable: true, signal, timeoutMs: 0 },
      (clients, call) => clients.sandbox.wakeSandbox({ sandbox: this.id }, call),
    );
  }

  async delete({ signal, force = false }: { readonly force?: boolean | undefined } & CallOptions = {}): Promise<void> {
    await this.#change("was being deleted", signal, (clients, call) =>
      clients.sandbox.deleteSandbox({ sandbox: this.id, force }, call),
    );
    this.#isDeleted = true;
  }

  async rename(name: string): Promise<void> {
    // The name that it has already is success, so it can be asked for again.
    await this.#link.call({ what: `${this.#title} was being renamed`, repeatable: true }, (clients, call) =>
      clients.sandbox.renameSandbox({ sandbox: this.id, name }, call),
    );
    this.#name = name;
  }

  async annotations(): Promise<Readonly<Record<string, string>>> {
    return (await this.info()).annotations;
  }

  async setAnnotations(annotations: Readonly<Record<string, string>>): Promise<void> {
    await this.#link.call({ what: `${this.#title} was being annotated`, repeatable: true }, (clients, call) =>
      clients.sandbox.setAnnotations({ sandbox: this.id, annotations: { ...annotations } }, call),
    );
  }

  async update(resources: SandboxResources, { signal }: CallOptions = {}): Promise<void> {
    const { memoryMib, cpus, sharedMemoryBytes } = resources;
    const request = {
      ...(memoryMib === undefined ? {} : { memoryMib }),
      ...(cpus === undefined ? {} : { cpus }),
      ...(sharedMemoryBytes === undefined ? {} : { sharedMemoryBytes }),
    };
    // The size it has already is success, so it can be asked for again.
    await this.#link.call(
      { what: `${this.#title} was being resized`, repeatable: true, signal, timeoutMs: 0 },
      (clients, call) => clients.sandbox.updateSandbox({ sandbox: this.id, ...request }, call),
    );
  }

  async checkpoint(options: CheckpointOptions = {}): Promise<CheckpointInfo> {
    const request = toCheckpointRequest(this.id, options);
    const answer = await this.#change("was being checkpointed", options.signal, ({ checkpoint }, call) =>
      checkpoint.createCheckpoint(request, call),
    );
    return fromCheckpointInfo(answer.checkpoint);
  }

  async waitForCheckpoint({ signal }: CallOptions = {}): Promise<CheckpointInfo> {
    // Made again it would wait for another one.
    const answer = await this.#link.call(
      { what: `the next checkpoint of ${this.#title} was waited for`, repeatable: false, signal, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.waitCheckpoint({ sandbox: this.id }, call),
    );
    return fromCheckpointInfo(answer.checkpoint);
  }

  async rewind(options: RewindOptions = {}): Promise<CheckpointInfo> {
    const request = toRewindRequest(this.id, options);
    const answer = await this.#change("was going back", options.signal, ({ checkpoint }, call) =>
      checkpoint.rewindSandbox(request, call),
    );
    return fromCheckpointInfo(answer.checkpoint);
  }

  async waitForRestore({ signal }: CallOptions = {}): Promise<void> {
    await this.#link.call(
      { what: `the restore of ${this.#title} was waited for`, repeatable: true, signal, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.waitRestored({ sandbox: this.id }, call),
    );
  }

  async fork(options: ForkOptions | number = {}): Promise<readonly SandboxHandle[]> {
    const signal = typeof options === "number" ? undefined : options.signal;
    const request = toForkRequest(this.id, options);
    const answer = await this.#change("was being forked", signal, ({ checkpoint }, call) =>
      checkpoint.forkSandbox(request, call),
    );
    return answer.sandboxes.map((each) => new ConnectedSandbox(this.#link, fromSandboxInfo(each), true));
  }

  async stats(): Promise<SandboxStats> {
    const answer = await this.#link.call({ what: `${this.#title} was measured`, repeatable: true }, (clients, call) =>
      clients.sandbox.getSandboxStats({ sandbox: this.id }, call),
    );
    return fromSandboxStats(answer.stats);
  }

  async *watch({ signal }: CallOptions = {}): AsyncGenerator<SandboxEvent> {
    const events = this.#link.stream({ what: `${this.#title} was watched`, signal }, ({ sandbox }, options) =>
      sandbox.watchSandbox({ sandbox: this.id }, options),
    );
    for await (const event of events) yield fromEvent(event);
  }

  get files(): Files {
    return this.main.files;
  }

  exec(command: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return this.main.exec(command, options);
  }

  spawn(command: readonly string[], options?: ExecOptions): Promise<ProcessHandle> {
    return this.main.spawn(command, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOwned && !this.#isDeleted) await deleteIfThere(this);
  }

  get #title(): string {
    return `sandbox ${this.id}`;
  }

  /** A call that must not be made twice, and takes as long as the runtime lets it. */
  #change<T>(what: string, signal: AbortSignal | undefined, make: MakeCall<T>): Promise<T> {
    return this.#link.call({ what: `${this.#title} ${what}`, repeatable: false, signal, timeoutMs: 0 }, make);
  }
}
