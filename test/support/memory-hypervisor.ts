/**
 * The hypervisor in memory: same contract as QEMU's, no process, no guest. A test can make any call fail, hold any call open,
 * end a VM from the inside, and read what was asked for, in order.
 */
import { createHash } from "node:crypto";
import { access, readFile, writeFile } from "node:fs/promises";
import {
  BelljarError,
  cancelledError,
  identifyProcess,
  type ProcessIdentity,
  throwIfAborted,
  vmmLimits,
} from "../../src/base/index.ts";
import type {
  DeviceConfig,
  DiskConfig,
  DiskOverlay,
  Hypervisor,
  HypervisorInfo,
  LoadOptions,
  MachineTraits,
  StartOptions,
  Vm,
  VmConfig,
  VmEnd,
  VmInfo,
  VmSize,
  VmState,
  WaitingVmm,
} from "../../src/hypervisor/index.ts";
import { FIRST_SWITCH_PORT } from "../../src/hypervisor/index.ts";

const MIB = 1024 * 1024;

export type MemoryCall =
  | "info"
  | "start"
  | "startWaiting"
  | "attach"
  | "pause"
  | "resume"
  | "vm-info"
  | "check"
  | "plugDisk"
  | "unplugDisk"
  | "growDisk"
  | "plugDevice"
  | "unplugDevice"
  | "size"
  | "resize"
  | "prepareDevices"
  | "saveDevices"
  | "openOverlays"
  | "useOverlays"
  | "useJoined"
  | "openWakeLine"
  | "kill"
  | "release";

export class MemoryHypervisor implements Hypervisor {
  /** What was asked for, in order: `start ID`, `plugDisk ID SERIAL`, ... */
  readonly calls: string[] = [];
  /** Every VM ever started, by id; the ended ones too. */
  readonly vms = new Map<string, MemoryVm>();
  readonly #failures = new Map<MemoryCall, unknown[]>();
  readonly #gates = new Map<MemoryCall, Promise<void>>();
  /** Runs when a VM has started: where a test puts its agent behind the VM's socket. */
  onStart: ((vm: MemoryVm, loaded: unknown) => void | Promise<void>) | undefined;
  /** Runs when a VM's device state is saved: what is in the guest at that instant. */
  onSave: ((vm: MemoryVm) => unknown) | undefined;
  /** By the number that stands for it in the saved file. */
  readonly #saved: unknown[] = [];

  /** Answers what a file of device state has to say. */
  saveGuest(vm: MemoryVm): string {
    this.#saved.push(this.onSave?.(vm));
    return `memory device state ${this.#saved.length - 1}`;
  }

  /** The next call of this kind, or the next few, fail with these errors, one each. */
  fail(call: MemoryCall, ...errors: unknown[]): void {
    this.#failures.set(call, [...(this.#failures.get(call) ?? []), ...errors]);
  }

  /** Calls of this kind wait until the answered function is called. */
  hold(call: MemoryCall): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gates.set(call, promise);
    return () => {
      this.#gates.delete(call);
      resolve();
    };
  }

  /** VMs that have not ended; none should be left at the end of a test. */
  get live(): MemoryVm[] {
    return [...this.vms.values()].filter((vm) => !vm.hasEnded);
  }

  async info(): Promise<HypervisorInfo> {
    await this.enter("info", "");
    return { name: "memory", version: "1.0.0", path: "/memory" };
  }

  async start(config: VmConfig, options: StartOptions = {}): Promise<Vm> {
    throwIfAborted(options.signal);
    await this.enter("start", config.id, options.signal);
    if (this.vms.get(config.id)?.hasEnded === false)
      throw new BelljarError("VMM_START_FAILED", `${config.id} runs already`);
    const path = options.loadDevicesFrom;
    if (path !== undefined && !(await isThere(path))) {
      throw new BelljarError("VMM_START_FAILED", `there is no device state ${path}`);
    }
    // Its pid can be looked up, and it is nobody's: who would end it by its identity finds it gone.
    const self = await identifyProcess(process.pid);
    if (self === undefined) throw new BelljarError("INTERNAL", "this process cannot be seen");
    const identity = { ...self, startTicks: self.startTicks + this.vms.size + 1 };
    const vm = new MemoryVm(this, config, identity, path === undefined ? "running" : "paused");
    this.vms.set(config.id, vm);
    try {
      await options.onSpawn?.(identity);
      const number =
        path === undefined ? undefined : /memory device state (\d+)$/.exec(await readFile(path, "latin1"))?.[1];
      if (path !== undefined && number === undefined) {
        throw new BelljarError("VMM_START_FAILED", `${path} holds no device state`);
      }
      if (path !== undefined)
        await options.fillMemory?.(identity, [
          { name: "ram", address: 4096, sizeBytes: config.memoryMib * MIB, isUnused: false },
        ]);
      await this.onStart?.(vm, number === undefined ? undefined : this.#saved[Number(number)]);
      throwIfAborted(options.signal);
      return vm.handle();
    } catch (error) {
      vm.end({ cause: "requested" });
      throw error;
    }
  }

  /** Those that wait, by id; one that is taken is a VM. */
  readonly waiting = new Map<string, MemoryWaitingVmm>();

  async startWaiting(config: VmConfig, options: Pick<StartOptions, "signal" | "onSpawn"> = {}): Promise<WaitingVmm> {
    throwIfAborted(options.signal);
    await this.enter("startWaiting", config.id, options.signal);
    const self = await identifyProcess(process.pid);
    if (self === undefined) throw new BelljarError("INTERNAL", "this process cannot be seen");
    const waiting = new MemoryWaitingVmm(this, config, { ...self, startTicks: self.startTicks + 1_000_000 });
    this.waiting.set(config.id, waiting);
    await options.onSpawn?.(waiting.vmm);
    return waiting;
  }

  async compatibility({ acceleration, memoryMib, cpus, boot }: VmConfig): Promise<string> {
    const text = JSON.stringify([acceleration, memoryMib, cpus, boot.kernelArguments]);
    return createHash("sha256").update(text).digest("hex");
  }

  /** Of every VM; a test puts others in, to be on another host. */
  version = "1.0.0";

  async traits(config: VmConfig): Promise<MachineTraits> {
    const { acceleration } = config;
    const commandLine = await this.compatibility(config);
    return { hypervisor: `memory ${this.version}`, machine: "none", acceleration, cpuFeatures: [], commandLine };
  }

  async attach(state: VmState): Promise<Vm> {
    await this.enter("attach", state.id);
    const vm = this.vms.get(state.id);
    if (vm === undefined || vm.hasEnded)
      throw new BelljarError("VMM_DIED", `the process of the VM ${state.id} is gone`);
    return vm.handle();
  }

  /** Records a call, waits at its gate, and fails if it was told to. */
  async enter(call: MemoryCall, what: string, signal?: AbortSignal): Promise<void> {
    this.calls.push(`${call} ${what}`.trim());
    const gate = this.#gates.get(call);
    if (gate !== undefined) {
      await Promise.race([
        gate,
        new Promise<never>((_, reject) => {
          signal?.addEventListener("abort", () => reject(cancelledError(signal)), { once: true });
        }),
      ]);
    }
    const error = this.#failures.get(call)?.shift();
    if (error !== undefined) throw error;
  }
}

/** A VMM without a guest. */
export class MemoryWaitingVmm implements WaitingVmm {
  readonly vmm: ProcessIdentity;
  readonly ended: Promise<void>;
  /** Ends it, as a process ends by itself. */
  readonly end: () => void;
  /** What its memory is mapped from. */
  readonly memoryPath: string | undefined;
  readonly #hypervisor: MemoryHypervisor;

  constructor(hypervisor: MemoryHypervisor, { id, memoryFile }: VmConfig, vmm: ProcessIdentity) {
    this.#hypervisor = hypervisor;
    this.vmm = vmm;
    this.memoryPath = memoryFile?.path;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.end = () => {
      hypervisor.waiting.delete(id);
      resolve();
    };
  }

  async load(config: VmConfig, options: LoadOptions): Promise<Vm> {
    this.#hypervisor.waiting.delete(config.id);
    return await this.#hypervisor.start(config, options);
  }

  async kill(): Promise<void> {
    this.end();
  }
}

/** A VM as the test sees it; what the code under test holds is a handle of it. */
export class MemoryVm {
  readonly config: VmConfig;
  readonly ended: Promise<VmEnd>;
  readonly #hypervisor: MemoryHypervisor;
  readonly #identity: ProcessIdentity;
  readonly #settle: (end: VmEnd) => void;
  #changed = Promise.withResolvers<void>();
  status: "running" | "paused" | "ended";
  /** What is asked for after it is carried out after it. */
  #pausing: Promise<void> = Promise.resolve();
  disks: DiskConfig[];
  /** Opened and not used. */
  overlays: DiskOverlay[] = [];
  /** Of those that were made to grow. */
  readonly diskSizes = new Map<string, number>();
  devices: DeviceConfig[];
  memoryFile: VmConfig["memoryFile"];
  /** What it has now. */
  size: VmSize;
  /** What the guest goes along with when it is resized; everything unless told. */
  takes: (wanted: VmSize, before: VmSize) => VmSize = (wanted) => wanted;
  /** What the guest has written on its console. */
  console = "";
  /** The guest's wake program; without one nobody answers. */
  onWake: ((message: Uint8Array) => Buffer) | undefined;

  constructor(hypervisor: MemoryHypervisor, config: VmConfig, identity: ProcessIdentity, status: "running" | "paused") {
    this.#hypervisor = hypervisor;
    this.config = config;
    this.#identity = identity;
    this.status = status;
    this.size = { memoryMib: config.memoryMib, cpus: config.cpus + (config.pluggedCpus ?? 0) };
    this.memoryFile = config.memoryFile;
    this.disks = [];
    this.devices = [];
    for (const disk of config.disks) this.#place(disk);
    for (const device of config.devices ?? []) this.#placeDevice(device);
    const { promise, resolve } = Promise.withResolvers<VmEnd>();
    this.ended = promise;
    this.#settle = resolve;
  }

  get hasEnded(): boolean {
    return this.status === "ended";
  }

  /** Ends the VM from the inside; the first cause is kept. */
  end(end: VmEnd): void {
    this.status = "ended";
    this.#settle(end);
    this.#changed.resolve();
  }

  /** Waits until its CPUs run; what is inside does nothing before. @throws BelljarError `AGENT_DISCONNECTED` when it ends */
  async whileRunning(): Promise<void> {
    while (this.status === "paused") await this.#changed.promise;
    if (this.hasEnded) throw new BelljarError("AGENT_DISCONNECTED", "the VM has ended");
  }

  handle(): Vm {
    const { id, runDir, acceleration, memoryMib, cpus, memoryMaxMib, cpusMax } = this.config;
    let released = false;
    const ask = async (call: MemoryCall, what = ""): Promise<void> => {
      if (released) throw new BelljarError("INVALID_TRANSITION", "this handle of the VM was let go");
      await this.#hypervisor.enter(call, `${id} ${what}`.trim());
      if (this.hasEnded) throw new BelljarError("VMM_DIED", "the VM has ended");
    };
    const save = (): VmState => ({
      id,
      vmm: this.#identity,
      runDir,
      acceleration,
      memoryMib,
      cpus,
      memoryMaxMib,
      cpusMax,
      pluggedMemoryMib: this.size.memoryMib - memoryMib,
      pluggedCpus: this.size.cpus - cpus,
      disks: [...this.disks],
      devices: [...this.devices],
      sharedMemory: this.config.sharedMemory === true,
      ...(this.config.wakePort === true ? { wakePort: true } : {}),
      ports: this.#ports,
      memoryFile: this.memoryFile,
    });
    return {
      agentSocketPath: `${runDir}/agent.sock`,
      openWakeLine: async () => {
        await ask("openWakeLine");
        const answer = async (message: Uint8Array): Promise<Buffer> => {
          await this.whileRunning();
          if (this.onWake === undefined) throw new BelljarError("DEADLINE_EXCEEDED", "nobody wakes");
          return this.onWake(message);
        };
        return { ask: answer, close: () => {} };
      },
      ended: this.ended,
      renameFiles: ({ disks, memoryFile: file }) => {
        this.disks = this.disks.map((disk) => ({ ...disk, path: disks.get(disk.serial) ?? disk.path }));
        this.memoryFile = file;
      },
      pause: () => {
        const pausing = (async () => {
          await ask("pause");
          this.status = "paused";
        })();
        this.#pausing = pausing.catch(() => {});
        return pausing;
      },
      resume: async () => {
        await ask("resume");
        this.status = "running";
        this.#changed.resolve();
        this.#changed = Promise.withResolvers();
        return undefined;
      },
      info: async (): Promise<VmInfo> => {
        if (!this.hasEnded) await ask("vm-info");
        const { pid } = this.#identity;
        return { status: this.status, acceleration, pid, vcpuThreadIds: this.hasEnded ? [] : [pid] };
      },
      check: () => ask("check"),
      plugDisk: async (disk) => {
        await ask("plugDisk", disk.serial);
        this.#place(disk);
      },
      unplugDisk: async (serial) => {
        await ask("unplugDisk", serial);
        const rest = this.disks.filter((disk) => disk.serial !== serial);
        if (rest.length === this.disks.length)
          throw new BelljarError("INVALID_ARGUMENT", `the VM has no disk ${serial}`);
        this.disks = rest;
      },
      growDisk: async (serial, sizeBytes) => {
        await ask("growDisk", `${serial} ${sizeBytes}`);
        this.diskSizes.set(serial, Math.max(this.diskSizes.get(serial) ?? 0, sizeBytes));
      },
      plugDevice: async (device) => {
        await ask("plugDevice", device.id);
        this.#placeDevice(device);
      },
      unplugDevice: async (device) => {
        await ask("unplugDevice", device);
        const rest = this.devices.filter((other) => other.id !== device);
        if (rest.length === this.devices.length)
          throw new BelljarError("INVALID_ARGUMENT", `the VM has no device ${device}`);
        this.devices = rest;
      },
      size: async () => {
        await ask("size");
        return this.size;
      },
      resize: async (wanted) => {
        await ask("resize", `${wanted.memoryMib} ${wanted.cpus}`);
        if (wanted.memoryMib > (memoryMaxMib ?? memoryMib) || wanted.cpus > (cpusMax ?? cpus)) {
          throw new BelljarError("INVALID_ARGUMENT", "the VM cannot have so much");
        }
        const { memoryMib: takenMib, cpus: taken } = this.takes(wanted, this.size);
        this.size = { memoryMib: Math.max(memoryMib, takenMib), cpus: Math.max(cpus, taken) };
        return this.size;
      },
      memoryBlocks: async () => [{ name: "ram", address: 4096, sizeBytes: memoryMib * MIB, isUnused: false }],
      openOverlays: async (overlays) => {
        await ask("openOverlays", overlays.map(({ serial }) => serial).join(" "));
        this.overlays = [...overlays];
      },
      useOverlays: async () => {
        await this.#pausing;
        await ask("useOverlays");
        const over = this.overlays.splice(0);
        this.disks = this.disks.map(({ isHostDevice, ...disk }) => {
          const path = over.find(({ serial }) => serial === disk.serial)?.path;
          if (path !== undefined) return { ...disk, path, format: "qcow2", overlays: (disk.overlays ?? 0) + 1 };
          return isHostDevice === undefined ? disk : { ...disk, isHostDevice };
        });
      },
      useJoined: async ({ serial, path }) => {
        await ask("useJoined", serial);
        if (!(await isThere(path))) throw new BelljarError("VMM_PROTOCOL", `there is no ${path}`);
        this.disks = this.disks.map((disk) => {
          const { overlays } = disk;
          return disk.serial === serial && overlays !== undefined ? { ...disk, joined: overlays } : disk;
        });
      },
      closeOverlays: async () => {
        this.overlays = [];
      },
      prepareDevices: async (path) => {
        await ask("prepareDevices", path);
        await writeFile(path, "", { flag: "wx" });
      },
      saveDevices: async (path) => {
        await this.#pausing;
        await ask("saveDevices", path);
        if (this.status !== "paused") {
          throw new BelljarError("INVALID_TRANSITION", "device state can be saved of a paused VM only");
        }
        await writeFile(path, this.#hypervisor.saveGuest(this));
      },
      consoleTail: () => this.console,
      save,
      kill: async () => {
        if (this.hasEnded) return;
        await ask("kill");
        this.end({ cause: "requested" });
      },
      release: async () => {
        if (released || this.hasEnded) return;
        await ask("release");
        released = true;
      },
    };
  }

  get #ports(): number {
    return this.config.ports ?? vmmLimits.portsDefault;
  }

  #place(disk: DiskConfig): void {
    if (this.disks.some((other) => other.serial === disk.serial)) {
      throw new BelljarError("INVALID_ARGUMENT", `the VM has a disk ${disk.serial} already`);
    }
    if (disk.driver === "virtio-blk") {
      this.disks = [...this.disks, { ...disk, port: this.#port(disk.port) }];
      return;
    }
    const taken = new Set(this.disks.map((other) => other.slot));
    this.disks = [...this.disks, { ...disk, slot: disk.slot ?? lowestFree(taken) }];
  }

  #placeDevice(device: DeviceConfig): void {
    if (this.devices.some((other) => other.id === device.id)) {
      throw new BelljarError("INVALID_ARGUMENT", `the VM has a device ${device.id} already`);
    }
    if (device.kind !== "vfio" && device.kind !== "net" && this.config.sharedMemory !== true) {
      throw new BelljarError("SHARED_MEMORY_NEEDED", `the device ${device.id} needs memory that can be shared`);
    }
    const isBehindSwitch = device.kind === "vfio" && device.behindSwitch === true;
    this.devices = [...this.devices, { ...device, port: this.#port(device.port, isBehindSwitch) }];
  }

  #port(wanted: number | undefined, isBehindSwitch = false): number {
    const taken = new Set([...this.disks, ...this.devices].map((other) => other.port));
    const first = isBehindSwitch ? FIRST_SWITCH_PORT : 0;
    const port = wanted ?? lowestFree(taken, first);
    if (port < first + (isBehindSwitch ? (this.config.switchPorts ?? 0) : this.#ports)) return port;
    throw new BelljarError("TOO_MANY_DEVICES", `all ${this.#ports} ports of the VM are taken`);
  }
}

function lowestFree(taken: ReadonlySet<number | undefined>, first = 0): number {
  let at = first;
  while (taken.has(at)) at += 1;
  return at;
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
