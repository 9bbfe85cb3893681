/**
 * What a program, the command line and the daemon's API can do with one root: the same interface whether the runtime is in this
 * process (`openRuntime`) or behind the daemon's socket. Only types; nothing here runs.
 *
 * Names: a sandbox or container is named by its id, an unambiguous prefix of it, or its name. Every method throws
 * `BelljarError`; those that wait take an `AbortSignal`, which ends the waiting and undoes what the call had begun.
 */
import type { EndCause, LifecycleState, OutputLine, ShownState } from "../base/index.ts";
import type {
  BlockIoStats,
  ContainerConfig,
  ContainerLimits,
  ContainerStats,
  Files,
  MountInfo,
  NetworkStats,
  ProcessConfig,
  ProcessStatus,
  RootfsConfig,
  StorageKind,
  StorageOptions,
  StorageState,
  TerminalSize,
} from "../container/index.ts";
import type { DeviceRequest } from "../devices/index.ts";
import type { NetworkConfig, PortConfig } from "../network/index.ts";
import type { RestartConfig, RestartState, SandboxConfig, TrailSettings } from "../sandbox/index.ts";
import type { CallOptions } from "./call-options.ts";
import type {
  CheckpointInfo,
  RestoredContainer,
  RestoreFinding,
  RestoreReport,
  SpecValidation,
} from "./checkpoint-facts.ts";
import type { NetworkInfo, SandboxNetwork } from "./network-interface.ts";
import type {
  HibernationInfo,
  RuntimeEvent,
  SandboxEvent,
  SandboxResourcesInfo,
  SandboxStats,
  VmmInfo,
} from "./told.ts";

export type {
  InterfaceInfo,
  NetworkInfo,
  NetworkInterfaceInfo,
  RouteInfo,
  SandboxNetwork,
} from "./network-interface.ts";
export type { CallOptions, CheckpointInfo, RestoredContainer, RestoreFinding, RestoreReport, SpecValidation };

export interface Sandboxes {
  /** Boots a VM and makes the first container in it; `start: false` leaves both `ready`. All or nothing. */
  create(config: SandboxCreateConfig, options?: SandboxCreateOptions): Promise<SandboxHandle>;
  /** @throws BelljarError `SANDBOX_NOT_FOUND`, `SANDBOX_AMBIGUOUS`; what its state file threw when it cannot be read */
  get(nameOrId: string): Promise<SandboxHandle>;
  /** Oldest first, those whose state cannot be read included (`problem` says why). */
  list(): Promise<readonly SandboxInfo[]>;
  /**
   * What happens to all of them, numbered; what happened earlier is replayed from a number on.
   * @throws BelljarError `INVALID_ARGUMENT` for a number that there is not yet
   */
  events(options?: EventsOptions): AsyncIterable<RuntimeEvent>;
}

export interface EventsOptions extends CallOptions {
  /** Begin behind this event: 0 for all that are kept; with what happens from now on unless told. */
  readonly after?: number | undefined;
  /** Go on with what happens; true unless told. Without it, and without `after`, all that are kept. */
  readonly follow?: boolean | undefined;
  /** Told of the number behind which it begins, before there is any event. */
  readonly onBegin?: ((after: number) => void) | undefined;
}

/**
 * Whole sandboxes, frozen at one instant: memory, disks and state, in a directory each. They outlive their source, and are restored
 * any number of times, each time as a new sandbox. Named as sandboxes are: id, unambiguous prefix of it, or name.
 */
export interface Checkpoints {
  /** Oldest first, those that cannot be read included (`problem` says why). */
  list(): Promise<readonly CheckpointInfo[]>;
  /** @throws BelljarError `CHECKPOINT_NOT_FOUND`, `CHECKPOINT_AMBIGUOUS` */
  get(nameOrId: string): Promise<CheckpointInfo>;
  /**
   * Makes a new sandbox that goes on where the checkpoint was taken. Everything that can refuse is checked before anything starts.
   * @throws BelljarError `CHECKPOINT_MISMATCH` when it does not fit this host, `CHECKPOINT_CORRUPT`
   */
  restore(nameOrId: string, options?: RestoreOptions): Promise<SandboxHandle>;
  /**
   * Restores a sandbox whose containers are given one by one: it begins when the last one has been given, and `name` of each says which
   * one of the checkpoint it is. Given up when they are not all there in time.
   */
  begin(nameOrId: string, options?: Omit<RestoreOptions, "containers">): Promise<RestoreSession>;
  /** One that was begun and is not long over, by its id. @throws BelljarError `CHECKPOINT_NOT_FOUND` */
  session(id: string): Promise<RestoreSession>;
  /** What `restore` would find: everything that fits and that does not. Starts nothing. */
  check(nameOrId: string, options?: RestoreOptions): Promise<RestoreReport>;
  /** Reads every byte of it, and compares it with what was written. @throws BelljarError `CHECKPOINT_CORRUPT` */
  verify(nameOrId: string, options?: CallOptions): Promise<CheckpointInfo>;
  /** Sandboxes that were restored from it go on. */
  remove(nameOrId: string): Promise<CheckpointInfo>;
}

export interface CheckpointOptions extends CallOptions {
  /** Unique among checkpoints; the id stands in when there is none. */
  readonly name?: string | undefined;
  /** Ends the sandbox once the checkpoint is there; it goes on unless told. */
  readonly stop?: boolean | undefined;
  /**
   * Lays its memory out to be shared: `create` with `template` starts sandboxes from it, in which everything runs as it did. It takes
   * more room than a checkpoint does.
   */
  readonly asTemplate?: boolean | undefined;
  /** Packs its pages: less room, and more time for it and for each restore. */
  readonly compress?: boolean | undefined;
}

/** Where to go back to; the latest checkpoint unless told. */
export interface RewindOptions extends CallOptions {
  /** One of its own: id, unambiguous prefix of it, or name. */
  readonly checkpoint?: string | undefined;
  /** Milliseconds since the epoch: the latest that was taken then or earlier. */
  readonly beforeMs?: number | undefined;
  /** Processes that `exec` had started go on; they are ended unless told. */
  readonly keepExec?: boolean | undefined;
}

export interface RestoreOptions extends CallOptions {
  /** Of the new sandbox; its id stands in when there is none. */
  readonly name?: string | undefined;
  readonly hostname?: string | undefined;
  /** To be published; the ports that the source had, under free ports of the host, unless told. */
  readonly ports?: readonly PortConfig[] | undefined;
  /** Another kind of network than the source's, or another namespace. */
  readonly network?: Omit<NetworkConfig, "ports"> | undefined;
  /** Processes that `exec` had started in the source go on; they are ended unless told, as nobody waits for them. */
  readonly keepExec?: boolean | undefined;
  /** Those that are to be another in something; the others are as they were. */
  readonly containers?: readonly RestoredContainer[] | undefined;
  /** Of the specifications of `containers`; `enforce` unless told. */
  readonly specValidation?: SpecValidation | undefined;
}

/** Disposing of it gives up what was not restored yet. */
export interface RestoreSession extends AsyncDisposable {
  readonly id: string;
  /** Names of the containers that the checkpoint has. */
  readonly expected: readonly string[];
  /**
   * The last one resolves when the sandbox runs, and fails with why it does not.
   * @throws BelljarError `CONTAINER_EXISTS` for a second one of a name or id, `CHECKPOINT_MISMATCH` with the names that there are, which
   * gives everything up, `DEADLINE_EXCEEDED` when the others came too late
   */
  add(container: RestoredContainer): Promise<void>;
  /**
   * Until all containers are restored and run. Their standard streams are got by name: `containers.get(name)`, then
   * `attach({ sinceRestore: true })`.
   */
  wait(options?: CallOptions): Promise<SandboxHandle>;
}

export interface ForkOptions extends CallOptions {
  /** One unless told. */
  readonly count?: number | undefined;
  /** Of the new sandboxes; `{n}` in it counts from 1, and must be there when there are several. */
  readonly name?: string | undefined;
  readonly keepExec?: boolean | undefined;
}

/** Storage is the first container's. */
export interface SandboxCreateConfig extends Omit<SandboxConfig, "template">, StorageOptions {
  /**
   * Start from a template, made on first use; true unless told. Without one every start boots a kernel. The name, id or digest of one
   * that was made of a sandbox is in place of everything else but a name, a host name, published ports, and what is to happen when it
   * stops: the new sandbox goes on where that one was.
   */
  readonly template?: boolean | string | undefined;
  /** Name of an image that is here (see `runtime.images`). */
  readonly image?: string | undefined;
  /** In place of an image: a root file system that is ready. */
  readonly rootfs?: RootfsConfig | undefined;
  readonly container?: ContainerConfig | undefined;
}

export interface SandboxCreateOptions extends CallOptions {
  /** Start it too; true unless told. */
  readonly start?: boolean | undefined;
  /** Told of every long step, in words for people. */
  readonly progress?: ((step: string) => void) | undefined;
}

export interface StopOptions extends CallOptions {
  /** Between the stop signal and SIGKILL; 0 kills at once. `sandboxLimits.stopGraceMs` unless told. */
  readonly timeoutMs?: number | undefined;
  /** Go on past errors: the state ends `stopped` whatever happens. */
  readonly force?: boolean | undefined;
}

export interface KillOptions extends CallOptions {
  /** Number; SIGKILL unless told. */
  readonly number?: number | undefined;
  /** Every process of the container, not its first one alone. */
  readonly all?: boolean | undefined;
}

/** Named volumes: file systems that outlive the containers that use them. */
export interface Volumes {
  /** One that is there, and is not another than asked for, is success. @throws BelljarError `VOLUME_EXISTS` */
  create(config?: VolumeCreateConfig, options?: CallOptions): Promise<VolumeInfo>;
  /** @throws BelljarError `VOLUME_NOT_FOUND` */
  get(name: string): Promise<VolumeInfo>;
  /** Oldest first. */
  list(): Promise<readonly VolumeInfo[]>;
  /** @throws BelljarError `VOLUME_NOT_FOUND`, `VOLUME_IN_USE` while a container refers to it */
  remove(name: string): Promise<void>;
  /** Removes those that no container refers to and that nobody gave a name; with `all` the named ones too. */
  prune(options?: { readonly all?: boolean | undefined }): Promise<{
    readonly removed: readonly string[];
    readonly freedBytes: number;
  }>;
}

export interface VolumeCreateConfig {
  /** A new id stands in when there is none. */
  readonly name?: string | undefined;
  /** `mountLimits.volumeDefaultBytes` unless told; sparse. */
  readonly sizeBytes?: number | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
}

export interface VolumeInfo {
  readonly name: string;
  readonly createdAtMs: number;
  readonly sizeBytes: number;
  /** What it takes on the host. */
  readonly usedBytes: number;
  /** Of its disk on the host. */
  readonly path: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Containers that refer to it. */
  readonly users: readonly VolumeUser[];
}

export interface VolumeUser {
  readonly sandboxId: string;
  readonly containerId: string;
  readonly destination: string;
  readonly readOnly: boolean;
  /** It is mounted now. */
  readonly mounted: boolean;
}

/** What is left out stays as it is. */
export interface SandboxResources {
  readonly memoryMib?: number | undefined;
  readonly cpus?: number | undefined;
  /** Size of the /dev/shm that its containers share. */
  readonly sharedMemoryBytes?: number | undefined;
}

/** Disposing of the handle that has made the sandbox (`create`, `restore`, `fork`) deletes it; disposing of another one does nothing. */
export interface SandboxHandle extends AsyncDisposable {
  readonly id: string;
  readonly name: string;
  info(): Promise<SandboxInfo>;
  /** Of a `ready` sandbox: starts its containers. Of a `stopped` one: boots it again, with the disks as they were left. */
  start(options?: CallOptions): Promise<void>;
  stop(options?: StopOptions): Promise<void>;
  /** Stops the VM's CPUs. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /**
   * Lets its VM go: it is kept as it is on disk, costs no memory and no time, and goes on where it was when somebody wants something of
   * it. Calls that wait for something of its processes wait on. One that is hibernated is success.
   * @throws BelljarError `NOT_CHECKPOINTABLE` with what stands in the way, `DISK_FULL`; it goes on then
   */
  hibernate(options?: CallOptions): Promise<void>;
  /** What every call that needs the guest does by itself. One that is awake is success. @throws BelljarError `INVALID_TRANSITION` when it is stopped */
  wake(options?: CallOptions): Promise<void>;
  /** @throws BelljarError `INVALID_TRANSITION` when it runs, unless `force` stops it first. */
  delete(options?: { readonly force?: boolean | undefined } & CallOptions): Promise<void>;
  /** Its host name stays what it is. @throws BelljarError `SANDBOX_EXISTS` */
  rename(name: string): Promise<void>;
  annotations(): Promise<Readonly<Record<string, string>>>;
  /** Merged into those that are there. */
  setAnnotations(annotations: Readonly<Record<string, string>>): Promise<void>;
  /**
   * Gives the VM another size: a running one grows and shrinks at once, within what it was started for; all or nothing.
   * @throws BelljarError `RESIZE_REFUSED` by the guest, `NOT_ENOUGH_MEMORY`, `INVALID_ARGUMENT`
   */
  update(resources: SandboxResources, options?: CallOptions): Promise<void>;
  /**
   * Freezes it as it is into a checkpoint, and lets it go on. A checkpoint that fails never harms it.
   * @throws BelljarError `NOT_CHECKPOINTABLE` with what stands in the way, `CHECKPOINT_EXISTS`, `DISK_FULL`
   */
  checkpoint(options?: CheckpointOptions): Promise<CheckpointInfo>;
  /** The next checkpoint that anybody makes of it; fails as that one does. */
  waitForCheckpoint(options?: CallOptions): Promise<CheckpointInfo>;
  /** Until all of it is restored and runs. @throws BelljarError `INVALID_TRANSITION` when it was neither restored nor forked */
  waitForRestore(options?: CallOptions): Promise<void>;
  /**
   * Goes back, in place, to where one of its own checkpoints was taken: what it did since is gone, its output too. It runs then, whatever it
   * was before. Everything that can refuse is checked before anything is ended.
   * @throws BelljarError `CHECKPOINT_NOT_FOUND`, `CHECKPOINT_MISMATCH`, `CHECKPOINT_CORRUPT`
   */
  rewind(options?: RewindOptions): Promise<CheckpointInfo>;
  /** New sandboxes that go on from here, as it does itself: one short pause for all of them. All or nothing. A number is their count. */
  fork(options?: ForkOptions | number): Promise<readonly SandboxHandle[]>;
  /** Memory, CPUs and cgroup of the VM on the host, and of the guest as a whole. */
  stats(): Promise<SandboxStats>;
  /** Changes of state, failures the monitor saw, and the sandbox's end; ends when the sandbox is deleted. */
  watch(options?: CallOptions): AsyncIterable<SandboxEvent>;

  readonly containers: Containers;
  readonly devices: Devices;
  readonly network: SandboxNetwork;
  /** The first container. */
  readonly main: ContainerHandle;
  /** Shorthands for the first container. */
  readonly files: Files;
  exec(command: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  spawn(command: readonly string[], options?: ExecOptions): Promise<ProcessHandle>;
}

/** What is plugged into a sandbox's VM. */
export interface Devices {
  /**
   * Plugs a device, and answers once the guest has it. The same device again counts one more reference.
   * @throws BelljarError `DISK_INVALID`, `DISK_IN_USE`, `DEVICE_NOT_FOUND`, `DEVICE_IN_USE`, `SHARED_MEMORY_NEEDED`, ...
   */
  add(config: DeviceRequest, options?: CallOptions): Promise<DeviceInfo>;
  /** Gives one reference back, named by the device's id or by what it is on the host; the last one unplugs it. */
  remove(device: string, options?: CallOptions): Promise<void>;
  /** Oldest first, containers' own disks included. */
  list(): Promise<readonly DeviceInfo[]>;
}

export interface DeviceInfo {
  readonly id: string;
  readonly kind: DeviceRequest["kind"];
  /** Path, socket or directory on the host. */
  readonly source: string;
  readonly readOnly: boolean;
  readonly state: "detached" | "attaching" | "attached" | "detaching";
  readonly references: number;
  /** Who has it attached, once per time: `sandbox`, or a container's id. */
  readonly attachments: readonly string[];
  /** In the guest, such as `/dev/sdc`. */
  readonly nodes: readonly string[];
  /** A container's own disk, or a layer of its image. */
  readonly isContainers: boolean;
  /** Of the program behind it, where Belljar started one. */
  readonly backEndPid?: number | undefined;
}

export interface Containers {
  /** Into a `ready` or `running` sandbox; the container is `ready` then. */
  create(config: ContainerCreateConfig, options?: CallOptions): Promise<ContainerHandle>;
  get(nameOrId: string): Promise<ContainerHandle>;
  list(): Promise<readonly ContainerInfo[]>;
}

export interface ContainerCreateConfig extends ContainerConfig, StorageOptions {
  readonly image?: string | undefined;
  /** In place of an image. */
  readonly rootfs?: RootfsConfig | undefined;
  /** Unique in its sandbox; the id stands in when there is none. */
  readonly name?: string | undefined;
}

export interface ExecOptions extends Omit<ProcessConfig, "command" | "workingDir">, CallOptions {
  /** Working directory: an absolute path in the container. The container's own unless told. */
  readonly cwd?: string | undefined;
  /** When `signal` fires the process is ended, also when it has been running for long; with false it goes on. */
  readonly endOnAbort?: boolean | undefined;
  /** Give the process an open standard input; otherwise it reads /dev/null. */
  readonly stdin?: boolean | undefined;
  readonly terminalSize?: TerminalSize | undefined;
}

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Disposing of the handle that `containers.create` has given deletes the container; disposing of another one does nothing. */
export interface ContainerHandle extends AsyncDisposable {
  readonly id: string;
  readonly sandboxId: string;
  readonly name: string;
  info(): Promise<ContainerInfo>;
  /** A start that fails leaves the container `stopped`, with the cause. */
  start(options?: CallOptions & { readonly terminalSize?: TerminalSize | undefined }): Promise<void>;
  stop(options?: StopOptions): Promise<void>;
  /** A container that has ended is success. */
  kill(options?: KillOptions): Promise<void>;
  /** Freezes its processes in the guest; the VM goes on. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  delete(options?: { readonly force?: boolean | undefined } & CallOptions): Promise<void>;
  /** Merged into the limits that are there. */
  update(limits: ContainerLimits): Promise<void>;
  /** Makes room where it writes, while it runs or before it runs again; never less. */
  growStorage(sizeBytes: number): Promise<void>;
  stats(): Promise<ContainerStats>;
  /** How its first process ended; waits until it has. */
  wait(options?: CallOptions): Promise<ProcessStatus>;
  /** Its first process; output begins at the beginning, or at `offsets`. */
  attach(options?: AttachOptions): Promise<ProcessHandle>;
  /** What its first process has written, as the host has it; follows what is still written when told to. */
  logs(options?: LogOptions): AsyncIterable<LogRecord>;
  exec(command: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  spawn(command: readonly string[], options?: ExecOptions): Promise<ProcessHandle>;
  /** A process that was started earlier, by this process or another one. @throws BelljarError `PROCESS_NOT_FOUND` */
  process(processId: string, options?: AttachOptions): Promise<ProcessHandle>;
  processes(): Promise<readonly ProcessInfo[]>;
  readonly files: Files;
}

export interface AttachOptions {
  /** Of a sandbox that was restored or forked: what it writes itself, and not what its source had written. */
  readonly sinceRestore?: boolean | undefined;
  /** First byte wanted of each stream; 0 unless told. */
  readonly stdoutOffset?: bigint | undefined;
  readonly stderrOffset?: bigint | undefined;
}

/**
 * A process in a container. Its output is kept until it is released, so a reader may come and go. Disposing of the handle that `spawn`
 * has given ends the process with SIGKILL and releases it; disposing of another one does nothing.
 */
export interface ProcessHandle extends AsyncDisposable {
  readonly containerId: string;
  /** Empty for the container's first process. */
  readonly id: string;
  /** In the guest. */
  readonly pid: number;
  readonly tty: boolean;
  readonly stdin: WritableStream<Uint8Array>;
  readonly stdout: ReadableStream<Uint8Array>;
  /** With a terminal: at its end from the beginning. */
  readonly stderr: ReadableStream<Uint8Array>;
  /** Both streams, line by line as they come; in place of reading them. */
  lines(): AsyncIterable<OutputLine>;
  /** Bytes of output that were gone before anybody read them. */
  readonly lostBytes: bigint;
  readonly status: Promise<ProcessStatus>;
  /** A process that is gone is success. */
  signal(number: number): Promise<void>;
  resize(size: TerminalSize): Promise<void>;
  /** Forgets an ended process: its status and its output. Idempotent. */
  release(): Promise<void>;
  /** One piece of a stream from an offset on, waiting for it at most `waitMs`: what streams are made of. */
  readOutput(request: OutputRequest, options?: CallOptions): Promise<OutputPiece>;
  /** Input by offset: a repeated call does no harm. Answers how much has been taken since the beginning. */
  writeInput(request: InputRequest, options?: CallOptions): Promise<InputAnswer>;
  /** How it ended, or undefined when it still runs after `waitMs`. */
  waitForEnd(waitMs: number, options?: CallOptions): Promise<ProcessStatus | undefined>;
}

export interface OutputRequest {
  /** 1 standard output, 2 standard error. */
  readonly stream: 1 | 2;
  readonly offset: bigint;
  readonly maxBytes: number;
  readonly waitMs: number;
  /**
   * Bytes before this one need not be kept; before `offset` unless told. Who hands output on to somebody else tells how far
   * that one is: should this process die, the next one begins there.
   */
  readonly acknowledged?: bigint | undefined;
  /** Nobody reads on: the process is not held up any more. */
  readonly detach?: boolean | undefined;
}

export interface OutputPiece {
  /** Larger than asked for when older bytes are gone. */
  readonly offset: bigint;
  readonly data: Uint8Array;
  readonly end: boolean;
}

export interface InputRequest {
  readonly offset: bigint;
  readonly data: Uint8Array;
  readonly end: boolean;
}

export interface InputAnswer {
  readonly accepted: bigint;
  /** The process reads no more. */
  readonly closed: boolean;
}

export interface LogOptions extends CallOptions {
  readonly follow?: boolean | undefined;
  /** Milliseconds since the epoch. */
  readonly sinceMs?: number | undefined;
  /** Lines from the end; all unless told. */
  readonly tailLines?: number | undefined;
}

export interface LogRecord {
  readonly stream: 1 | 2;
  readonly timeMs: number;
  readonly offset: bigint;
  readonly data: Uint8Array;
  /** Bytes of this stream that are missing before this record. */
  readonly lostBytes: bigint;
}

export type { EndCause };

export interface SandboxInfo {
  readonly id: string;
  readonly name: string;
  /** `hibernated`: it has no VM, and goes on when somebody wants something of it. */
  readonly state: ShownState;
  readonly hibernation?: HibernationInfo | undefined;
  /** Without activity for so long it is hibernated. */
  readonly idleTimeoutMs?: number | undefined;
  readonly trail?: TrailSettings | undefined;
  readonly restart?: (RestartConfig & RestartState) | undefined;
  readonly image: string;
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number;
  /** What the VM has; of a stopped sandbox what was asked for. */
  readonly memoryMib: number;
  readonly cpus: number;
  /** Of what it should have, by what was asked and by its containers' limits, and up to where it can grow. */
  readonly resources?: SandboxResourcesInfo | undefined;
  readonly hostname: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly containers: readonly ContainerInfo[];
  readonly devices: readonly DeviceInfo[];
  readonly vmm?: VmmInfo | undefined;
  /** While it has a VM with a network. */
  readonly network?: NetworkInfo | undefined;
  /** How many times it, or what it was restored or forked from, was restored or forked. */
  readonly generation: number;
  /** How many times it, or what it came from, was saved, or tried to be. */
  readonly checkpoints: number;
  readonly end?: EndCause | undefined;
  /** Its state file cannot be read, and this is why; the other fields say only what is known. */
  readonly problem?: string | undefined;
}

export interface ContainerInfo {
  readonly id: string;
  readonly name: string;
  readonly state: LifecycleState;
  readonly image: string;
  readonly command: readonly string[];
  readonly createdAtMs: number;
  readonly startedAtMs?: number | undefined;
  /** In the guest, while it runs. */
  readonly pid?: number | undefined;
  readonly tty: boolean;
  readonly stdin: boolean;
  /** Those it was created with. */
  readonly annotations: Readonly<Record<string, string>>;
  readonly limits: ContainerLimits;
  readonly mounts: readonly MountInfo[];
  /** Where it writes; absent where its root is a disk that was handed in. */
  readonly storage?: StorageState | undefined;
  readonly status?: ProcessStatus | undefined;
  /** Why it could not be started, or was ended by something other than itself. */
  readonly end?: EndCause | undefined;
}

export interface ProcessInfo {
  readonly id: string;
  readonly pid: number;
  readonly startedAtMs: number;
  readonly tty: boolean;
  readonly status?: ProcessStatus | undefined;
}

export type {
  BlockIoStats,
  ContainerStats,
  Files,
  HibernationInfo,
  MountInfo,
  NetworkStats,
  RootfsConfig,
  RuntimeEvent,
  SandboxEvent,
  SandboxResourcesInfo,
  SandboxStats,
  StorageKind,
  StorageState,
  VmmInfo,
};
