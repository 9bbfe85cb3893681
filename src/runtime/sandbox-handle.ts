/** One sandbox, as callers hold it. */
import { BelljarError, deleteIfThere, throwIfAborted } from "../base/index.ts";
import type { ContainerStats, Files } from "../container/index.ts";
import { readHostStats } from "../sandbox/index.ts";
import type { CheckpointMoves } from "./checkpoint-moves.ts";
import { RuntimeContainer, RuntimeContainers } from "./container-handle.ts";
import { RuntimeDevices } from "./devices.ts";
import { sandboxInfo } from "./info.ts";
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
} from "./interface.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";
import { RuntimeNetwork } from "./network.ts";

export class RuntimeSandbox implements SandboxHandle {
  readonly id: string;
  readonly containers: Containers;
  readonly devices: Devices;
  readonly network: SandboxNetwork;
  readonly #managed: ManagedSandbox;
  readonly #checkpoints: CheckpointMoves;
  /** A handle that came of `create` deletes what it created. */
  readonly #owns: boolean;

  constructor(managed: ManagedSandbox, checkpoints: CheckpointMoves, owns: boolean) {
    this.#checkpoints = checkpoints;
    this.id = managed.sandbox.id;
    this.containers = new RuntimeContainers(managed);
    this.devices = new RuntimeDevices(managed);
    this.network = new RuntimeNetwork(managed);
    this.#managed = managed;
    this.#owns = owns;
  }

  get name(): string {
    return this.#managed.state.name;
  }

  async info(): Promise<SandboxInfo> {
    this.#checkThere();
    return sandboxInfo(this.#managed.state, this.#managed.problem);
  }

  start(options: CallOptions = {}): Promise<void> {
    return this.#managed.start(options);
  }

  stop(options: StopOptions = {}): Promise<void> {
    return this.#managed.stop(options);
  }

  pause(): Promise<void> {
    return this.#managed.awake(() => this.#managed.pause());
  }

  async hibernate(options: CallOptions = {}): Promise<void> {
    await this.#managed.hibernation.hibernate({ signal: options.signal });
  }

  async wake(options: CallOptions = {}): Promise<void> {
    this.#checkThere();
    const { state, hibernation } = this.#managed.state;
    if (state === "stopped" && hibernation === undefined) {
      throw new BelljarError("INVALID_TRANSITION", `sandbox ${this.id} is stopped, not hibernated`, {
        remedy: "Start it, or one of its containers.",
      });
    }
    await this.#managed.hibernation.wake(options.signal);
  }

  resume(): Promise<void> {
    return this.#managed.resume();
  }

  delete(options: { readonly force?: boolean | undefined } & CallOptions = {}): Promise<void> {
    return this.#managed.delete(options);
  }

  rename(name: string): Promise<void> {
    return this.#managed.rename(name);
  }

  async annotations(): Promise<Readonly<Record<string, string>>> {
    this.#checkThere();
    return this.#managed.state.annotations;
  }

  setAnnotations(annotations: Readonly<Record<string, string>>): Promise<void> {
    return this.#managed.setAnnotations(annotations);
  }

  update(resources: SandboxResources, options: CallOptions = {}): Promise<void> {
    return this.#managed.awake(() => this.#managed.update(resources, options), options.signal);
  }

  checkpoint(options: CheckpointOptions = {}): Promise<CheckpointInfo> {
    return this.#managed.awake(() => this.#checkpoints.create(this.#managed, options), options.signal);
  }

  waitForCheckpoint(options: CallOptions = {}): Promise<CheckpointInfo> {
    return this.#checkpoints.wait(this.#managed, options);
  }

  async waitForRestore({ signal }: CallOptions = {}): Promise<void> {
    if (this.#managed.state.generation === 0) {
      throw new BelljarError("INVALID_TRANSITION", `sandbox ${this.id} was neither restored nor forked`);
    }
    // Its making has the turn until all of it runs.
    await this.#managed.exclusive("wait for the restore of", async () => this.#checkThere(), signal);
  }

  rewind(options: RewindOptions = {}): Promise<CheckpointInfo> {
    return this.#checkpoints.rewind(this.#managed, options);
  }

  fork(options: ForkOptions | number = {}): Promise<readonly SandboxHandle[]> {
    const wish = typeof options === "number" ? { count: options } : options;
    return this.#managed.awake(() => this.#checkpoints.fork(this.#managed, wish), wish.signal);
  }

  async stats(): Promise<SandboxStats> {
    this.#checkThere();
    const { sandbox } = this.#managed;
    this.#managed.check("stats");
    const { pid } = await sandbox.machine.vm.info();
    const host = await readHostStats(pid);
    const { memoryTotalBytes, memoryAvailableBytes, agentResidentBytes, processes } = await sandbox.call(
      "getGuestStats",
      {},
    );
    const containers: Record<string, ContainerStats> = {};
    for (const { id, state } of sandbox.state.containers) {
      if (state === "stopped") continue;
      containers[id] = await this.#managed.container(id).stats();
    }
    const deniedPackets = await sandbox.deniedPackets();
    return {
      host,
      guest: { memoryTotalBytes, memoryAvailableBytes, agentResidentBytes, processes },
      containers,
      ...(deniedPackets === undefined ? {} : { deniedPackets }),
    };
  }

  watch(options: CallOptions = {}): AsyncIterable<SandboxEvent> {
    return this.#managed.events.watch(options.signal);
  }

  get main(): ContainerHandle {
    const first = this.#managed.state.containers[0];
    if (first !== undefined) return new RuntimeContainer(this.#managed, first.id);
    throw new BelljarError("CONTAINER_NOT_FOUND", `sandbox ${this.id} has no container`);
  }

  get files(): Files {
    return this.main.files;
  }

  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await this.main.exec(command, options);
  }

  async spawn(command: readonly string[], options: ExecOptions = {}): Promise<ProcessHandle> {
    return await this.main.spawn(command, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#owns && !this.#managed.sandbox.gone.aborted) await deleteIfThere(this);
  }

  #checkThere(): void {
    throwIfAborted(this.#managed.sandbox.gone);
  }
}
