/**
 * What Belljar needs of a program that runs a virtual machine. One implementation today (`qemu/`), and an in-memory twin for
 * tests (`test/support`). Nothing above this folder names QEMU.
 *
 * Life of a VM: `start` -> running <-> paused -> ended. A VM outlives the process that started it: `save()` says all that
 * another process needs to take it over with `Hypervisor.attach`.
 */
import type { Log, ProcessIdentity } from "../base/index.ts";

export type Acceleration = "kvm" | "tcg";

export interface DiskConfig {
  /** Unique in the VM, and the serial number by which the guest finds the disk; at most 20 characters of [a-z0-9-]. */
  readonly serial: string;
  readonly path: string;
  readonly format: "raw" | "qcow2";
  /** The path is a block device of the host, not a file. */
  readonly isHostDevice?: boolean;
  readonly readOnly: boolean;
  /**
   * Address of a virtio-scsi disk on the VM's disk bus; the lowest free one unless told. `save()` always tells it: a VM that
   * loads device state must have its disks where they were.
   */
  readonly slot?: number;
  /** `virtio-scsi` unless told: one controller for all disks. A `virtio-blk` disk takes a root port of its own. */
  readonly driver?: DiskDriver;
  /** Root port of a virtio-blk disk; as with `slot`. */
  readonly port?: number;
  readonly cache?: DiskCache;
  readonly rates?: DiskRates;
  /** Put over the disk since the VM was started; the path is that of the last one. A VM that is started has none. */
  readonly overlays?: number;
  /** The overlay below which everything was joined since: those before it, and the disk itself, are no more. */
  readonly joined?: number;
}

export type DiskDriver = "virtio-scsi" | "virtio-blk";

/** How the host's page cache is used; neither unless told. */
export interface DiskCache {
  /** Past the page cache (`O_DIRECT`). */
  readonly direct: boolean;
  /** What the guest flushes is not: quicker, and torn when the host loses power. */
  readonly noFlush: boolean;
}

/** What a disk may be used for at most; no limit where nothing is said. */
export interface DiskRates {
  readonly readBytesPerSecond?: number;
  readonly writeBytesPerSecond?: number;
  readonly readsPerSecond?: number;
  readonly writesPerSecond?: number;
}

/** Where a disk's writes go from some instant on: an empty qcow2 image whose backing file is what the disk was until then. */
export interface DiskOverlay {
  readonly serial: string;
  readonly path: string;
}

/** A part of the guest's memory, as the VMM's process has it mapped. */
export interface MemoryBlock {
  /** `ram` is what the VM starts with, `growth` what it can grow by. */
  readonly name: "ram" | "growth";
  /** In the VMM's address space. */
  readonly address: number;
  readonly sizeBytes: number;
  /** Nothing of it is the guest's, nor will be before it is told that it may have some. */
  readonly isUnused: boolean;
}

/** What every device but a virtio-scsi disk has. */
interface PortDevice {
  /** Unique in the VM; at most 20 characters of [a-z0-9-]. */
  readonly id: string;
  /** The PCIe root port that it sits on; the lowest free one unless told. `save()` always tells it. */
  readonly port?: number;
}

/** A device whose other end is a program on the host that shares the guest's memory (`VmConfig.sharedMemory`). */
interface VhostUserDevice extends PortDevice {
  /** Unix socket on which the program listens. */
  readonly socketPath: string;
}

export interface VhostUserBlkDevice extends VhostUserDevice {
  readonly kind: "vhost-user-blk";
}

export interface VhostUserScsiDevice extends VhostUserDevice {
  readonly kind: "vhost-user-scsi";
}

export interface VhostUserNetDevice extends VhostUserDevice {
  readonly kind: "vhost-user-net";
  /** Six pairs of hexadecimal digits with colons. */
  readonly macAddress: string;
}

/** A network device whose other end is a tap of the network namespace that the VMM runs in. */
export interface NetDevice extends PortDevice {
  readonly kind: "net";
  /** Name of the tap; made by somebody else, and lasting. */
  readonly tap: string;
  /** Six pairs of hexadecimal digits with colons. */
  readonly macAddress: string;
}

export interface VhostUserFsDevice extends VhostUserDevice {
  readonly kind: "vhost-user-fs";
  /** By which the guest mounts it; at most 36 bytes. */
  readonly tag: string;
}

/** A device of the host, or several functions of one, handed to the guest. */
export interface VfioDevice extends PortDevice {
  readonly kind: "vfio";
  /** Addresses on the host's PCI bus, such as `0000:03:00.0`; function 0 first. */
  readonly hostAddresses: readonly string[];
  /** On a port of the VM's PCIe switch, not on a root port. */
  readonly behindSwitch?: boolean;
}

/** A device that is no disk of the VM's own. */
export type DeviceConfig =
  | VhostUserBlkDevice
  | VhostUserScsiDevice
  | VhostUserNetDevice
  | NetDevice
  | VhostUserFsDevice
  | VfioDevice;

export interface BootConfig {
  readonly kernelPath: string;
  /** Without one the kernel can only panic for want of a root, which is what the acceleration probe wants. */
  readonly initrdPath?: string;
  readonly kernelArguments: readonly string[];
}

/**
 * A file with the guest's memory. `shared`: the guest writes into it, which is how a template is made. `private`: the guest has a
 * copy-on-write mapping of it; the file must never change again, or the change would show through in every such guest.
 */
export interface MemoryFile {
  readonly path: string;
  readonly use: "shared" | "private";
  /** Digest of the template that the file is the memory of, if it is. */
  readonly template?: string | undefined;
}

export interface VmConfig {
  /** Also appears on the VMM's command line, so that a lost process can be found by it. */
  readonly id: string;
  /** Directory for sockets, pid file and log; exists, mode 0700, short enough for Unix socket paths. */
  readonly runDir: string;
  readonly acceleration: Acceleration;
  /** What it has when it starts. */
  readonly memoryMib: number;
  readonly cpus: number;
  /** Up to where it can grow while it runs; not at all unless told. */
  readonly memoryMaxMib?: number | undefined;
  readonly cpusMax?: number | undefined;
  /** CPUs that were plugged into the VM whose device state is to be loaded. */
  readonly pluggedCpus?: number | undefined;
  readonly boot: BootConfig;
  readonly disks: readonly DiskConfig[];
  /** There when the guest boots; later ones come with `plugDevice`. */
  readonly devices?: readonly DeviceConfig[];
  /** The guest's memory can be mapped by other programs, as vhost-user devices need it. Such a VM is no template's fork. */
  readonly sharedMemory?: boolean;
  /** There is a port for the program in the guest that brings copies back; none unless told, as in VMs of before there was one. */
  readonly wakePort?: boolean | undefined;
  /** PCIe root ports, which must be there at boot to plug anything into them; `vmmLimits.portsDefault` unless told. */
  readonly ports?: number;
  /** Ports of a PCIe switch on a further root port; there is none unless told. */
  readonly switchPorts?: number;
  /** Memory of the VMM's own unless told. */
  readonly memoryFile?: MemoryFile | undefined;
  /** Path of the network namespace that the VMM runs in; the caller's own unless told. */
  readonly networkNamespace?: string | undefined;
}

export interface VmSize {
  readonly memoryMib: number;
  readonly cpus: number;
}

/** How a VM ended; the first cause seen wins and is kept. */
export type VmEnd =
  /** This side asked for it (`quit`, `kill`). */
  | { readonly cause: "requested" }
  /** The guest powered off or rebooted by itself; `panic` when its console shows that the kernel panicked. */
  | { readonly cause: "guest"; readonly panic: boolean; readonly detail: string }
  /** The VMM's process ended by itself; `detail` has the last lines of its log. */
  | { readonly cause: "died"; readonly detail: string };

/** Plain data that survives this process. */
export interface VmState {
  readonly id: string;
  readonly vmm: ProcessIdentity;
  readonly runDir: string;
  readonly acceleration: Acceleration;
  /** What it had when it started. */
  readonly memoryMib: number;
  readonly cpus: number;
  /** Absent: it cannot grow. */
  readonly memoryMaxMib?: number | undefined;
  readonly cpusMax?: number | undefined;
  /** What was added since; absent is none. */
  readonly pluggedMemoryMib?: number | undefined;
  readonly pluggedCpus?: number | undefined;
  readonly disks: readonly DiskConfig[];
  /** `save()` always says these three; a VM that was started before there were ports and devices has none. */
  readonly devices?: readonly DeviceConfig[];
  readonly sharedMemory?: boolean;
  /** Said when there is one. */
  readonly wakePort?: boolean | undefined;
  readonly ports?: number;
  /** Said when there is a switch. */
  readonly switchPorts?: number;
  readonly memoryFile?: MemoryFile | undefined;
}

export interface VmInfo {
  readonly status: "running" | "paused" | "ended";
  readonly acceleration: Acceleration;
  readonly pid: number;
  readonly vcpuThreadIds: readonly number[];
}

export interface VmFileNames {
  /** By the serial number of the disk. */
  readonly disks: ReadonlyMap<string, string>;
  readonly memoryFile: MemoryFile | undefined;
}

export interface Vm {
  /** Unix socket of the virtio-serial port on which the agent listens. */
  readonly agentSocketPath: string;
  /** Settles, never rejects, when the VM is no more. */
  readonly ended: Promise<VmEnd>;

  pause(): Promise<void>;
  /**
   * Answers for how many milliseconds the CPUs stood still, from when `pause` asked for it, by the VMM's own account; undefined where it
   * gives none.
   */
  resume(): Promise<number | undefined>;
  info(): Promise<VmInfo>;
  /** @throws BelljarError `VMM_DIED` when the process is gone, `DEADLINE_EXCEEDED` when it does not answer. */
  check(): Promise<void>;
  /** Adds a disk to the running VM; resolves when the VMM has it, which is before the guest sees it. */
  plugDisk(disk: DiskConfig): Promise<void>;
  unplugDisk(serial: string): Promise<void>;
  /** At least so large, in the VMM; the guest is to be told. */
  growDisk(serial: string, sizeBytes: number): Promise<void>;
  /** As `plugDisk`, for all other devices; where it sits, `save()` says. */
  plugDevice(device: DeviceConfig): Promise<void>;
  unplugDevice(id: string): Promise<void>;

  /** What it has now, whoever has changed it: asked of the VMM. */
  size(): Promise<VmSize>;
  /**
   * Brings it to this size, or as near as the guest goes along with in this time, and answers what there is then. What the guest did
   * not take or give by then is not asked of it any more. A CPU is there when the VMM has it; the guest brings it online.
   * @throws BelljarError `INVALID_ARGUMENT` for a size that it cannot have, `NOT_ENOUGH_MEMORY`; nothing has changed then
   */
  resize(size: VmSize, options: ResizeOptions): Promise<VmSize>;

  /** Where its guest's memory is; the same for as long as the VMM lives. */
  memoryBlocks(): Promise<readonly MemoryBlock[]>;
  /** Opens overlays for these disks; nothing goes into them yet. Those of an earlier call that were not used are closed. */
  openOverlays(overlays: readonly DiskOverlay[]): Promise<void>;
  /**
   * From now on the disks' writes go into the opened overlays: into all of them, or, after an error, into none. Carried out after `pause`
   * and `saveDevices`, if they were asked for before: their answers need not be waited for.
   */
  useOverlays(): Promise<void>;
  /**
   * The file below the one that a disk's writes go into was replaced by another one with the same content: uses that one, and lets go of
   * all that the former lay over.
   */
  useJoined(joined: DiskOverlay): Promise<void>;
  /** Closes overlays that were opened and not used. */
  closeOverlays(): Promise<void>;
  /**
   * Makes the file for `saveDevices`, and tells what would refuse it, while the VM runs.
   * @throws BelljarError `NOT_CHECKPOINTABLE`
   */
  prepareDevices(path: string): Promise<void>;
  /** Writes the device state (no memory, no disks) of a VM that is paused, or was asked to before this, to the file made for it. */
  saveDevices(path: string): Promise<void>;
  /** One at a time; undefined in a VM that has no port for it. */
  openWakeLine(): Promise<WakeLine | undefined>;
  /** Last lines of the guest's console that this process has seen, cleaned of control characters. */
  consoleTail(): string;

  /** Files that it has open were renamed: so they are called in what `save` says from now on. Disks that are not named keep their paths. */
  renameFiles(names: VmFileNames): void;
  save(): VmState;
  /** Ends the VM at once, and waits until its process is gone. Idempotent; never throws for a VM that has ended. */
  kill(): Promise<void>;
  /** Lets go of every handle; the VM runs on. */
  release(): Promise<void>;
}

/** To the program in the guest that brings copies back. */
export interface WakeLine {
  /**
   * Sent at once, also to a guest whose CPUs do not run yet.
   * @throws BelljarError `DEADLINE_EXCEEDED`, `VMM_DIED`, `CANCELLED`
   */
  ask(message: Uint8Array, options: WakeAsk): Promise<Buffer>;
  close(): void;
}

export interface WakeAsk {
  /** How many bytes the answer has. */
  readonly answerBytes: number;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface ResizeOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface HypervisorInfo {
  readonly name: string;
  readonly version: string;
  readonly path: string;
}

/** What the device state of a VM depends on. */
export interface MachineTraits {
  /** Name and version of the VMM. */
  readonly hypervisor: string;
  /** Type of the emulated machine. */
  readonly machine: string;
  readonly acceleration: Acceleration;
  /** What the guest has seen of the host's CPU, one word each; none where the CPU is emulated. */
  readonly cpuFeatures: readonly string[];
  /** Digest of the command line without names and paths. */
  readonly commandLine: string;
}

/** A VMM that runs, and has no guest yet. */
export interface WaitingVmm {
  readonly vmm: ProcessIdentity;
  /** Settles, never rejects, when the process is gone. */
  readonly ended: Promise<unknown>;
  /**
   * It becomes the VM of this configuration, which is its own but for disks, devices and the name of the file of its memory; the VM is
   * paused, and `onSpawn` may not have ended: whoever lets it run waits for that. On any error it is ended.
   * @throws BelljarError as `start`
   */
  load(config: VmConfig, options: LoadOptions): Promise<Vm>;
  /** Idempotent. */
  kill(): Promise<void>;
}

/** Whose memory and device state a VMM is to have. */
export type LoadOptions = StartOptions & { readonly loadDevicesFrom: string };

export interface StartOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called as soon as there is a process; the guest's first instruction comes after what it answers. */
  readonly onSpawn?: ((vmm: ProcessIdentity) => Promise<void>) | undefined;
  /** Start from device state written by `saveDevices` instead of booting; the VM comes up paused. */
  readonly loadDevicesFrom?: string | undefined;
  /** Where in that file it begins, in bytes; at its beginning unless told. */
  readonly loadDevicesAt?: number | undefined;
  /**
   * Puts the guest's memory into the VMM's process; called before device state is loaded, because loading looks into the
   * guest's memory (ring indices, parts of the firmware) and refuses what does not fit.
   */
  readonly fillMemory?: ((vmm: ProcessIdentity, blocks: readonly MemoryBlock[]) => Promise<void>) | undefined;
}

export interface Hypervisor {
  /** @throws BelljarError `VMM_MISSING`, `VMM_TOO_OLD` */
  info(): Promise<HypervisorInfo>;
  /**
   * Starts a VM; resolves once the VMM answers and the guest's CPUs run (or the VM is loaded, and paused).
   * On any error nothing is left: no process, no socket.
   * @throws BelljarError `VMM_MISSING`, `VMM_TOO_OLD`, `VMM_START_FAILED`, `NOT_ENOUGH_MEMORY`, `CANCELLED`
   */
  start(config: VmConfig, options?: StartOptions): Promise<Vm>;
  /**
   * Starts a VMM without a guest: it waits for the memory and device state of one. Disks and devices of the configuration are those that it
   * has from the start; its guest has them at the same places, and may have more.
   * @throws BelljarError as `start`
   */
  startWaiting(config: VmConfig, options?: Pick<StartOptions, "signal" | "onSpawn">): Promise<WaitingVmm>;
  /**
   * Says in one digest what device state depends on: VMs with the same answer load what one of them saved. Names and
   * paths do not count.
   */
  compatibility(config: VmConfig): Promise<string>;
  /** The same in parts, for whoever has to say what does not fit, and on hosts whose programs are not the same files. */
  traits(config: VmConfig): Promise<MachineTraits>;
  /** Takes over a VM that another process started. @throws BelljarError `VMM_DIED` */
  attach(state: VmState): Promise<Vm>;
}

/** How `auto` decides; asked once per host and remembered. */
export interface AccelerationProbe {
  /** @throws BelljarError `ACCELERATION_UNAVAILABLE` when `kvm` is demanded and does not work. */
  resolve(wanted: "auto" | Acceleration, signal?: AbortSignal): Promise<AccelerationFinding>;
}

export interface AccelerationFinding {
  readonly acceleration: Acceleration;
  /** Why, in words for `belljar doctor`. */
  readonly explanation: string;
  readonly remembered: boolean;
}

export interface HypervisorDeps {
  readonly log: Log;
}
