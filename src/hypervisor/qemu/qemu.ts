/** QEMU as a `Hypervisor`: starts VMs, takes over those that another process started. */
import { BelljarError, isAlive, type Log, vmmLimits } from "../../base/index.ts";
import type { Hypervisor, HypervisorInfo, MachineTraits, StartOptions, Vm, VmConfig, VmState } from "../interface.ts";
import { qemuArguments, x86 } from "./arguments.ts";
import { compatibility, traits } from "./compatibility.ts";
import { queryPlugged } from "./growth.ts";
import { checkMemory, readAvailableMib } from "./host-memory.ts";
import { launch, openConnections, startSignal } from "./launch.ts";
import { findOverlays } from "./overlays.ts";
import { place } from "./placement.ts";
import { checkPorts } from "./ports.ts";
import { qemuInfo } from "./qemu-binary.ts";
import { checkMemoryShared, QemuVm } from "./qemu-vm.ts";
import { runFiles } from "./run-files.ts";
import { adoptVmm } from "./vmm-process.ts";

export interface QemuDeps {
  readonly log: Log;
  /** Name, looked up in PATH, or path of the QEMU program. */
  readonly binary?: string;
  /** From spawn until QEMU has answered. */
  readonly startTimeoutMs?: number;
  readonly availableMemoryMib?: () => Promise<number>;
}

export function createQemu(deps: QemuDeps): Hypervisor {
  return new Qemu(deps);
}

class Qemu implements Hypervisor {
  readonly #log: Log;
  readonly #binary: string;
  readonly #startTimeoutMs: number;
  readonly #availableMemoryMib: () => Promise<number>;

  constructor(deps: QemuDeps) {
    this.#log = deps.log;
    this.#binary = deps.binary ?? x86.binary;
    this.#startTimeoutMs = deps.startTimeoutMs ?? vmmLimits.startTimeoutMs;
    this.#availableMemoryMib = deps.availableMemoryMib ?? readAvailableMib;
  }

  async info(): Promise<HypervisorInfo> {
    return await qemuInfo(this.#binary);
  }

  async start(config: VmConfig, options: StartOptions = {}): Promise<Vm> {
    const { id, runDir, acceleration, memoryMib, cpus, memoryMaxMib, cpusMax, pluggedCpus, boot, memoryFile } = config;
    const files = runFiles(runDir);
    const ports = checkPorts(config.ports ?? vmmLimits.portsDefault);
    const sharedMemory = config.sharedMemory === true;
    const wakePort = config.wakePort === true;
    const switchPorts = checkPorts(config.switchPorts ?? 0, vmmLimits.switchPortsMax);
    // Overlays are put over a running VM's disks; one that is started has what they came to.
    const wanted = config.disks.map(({ overlays: _, joined: __, ...disk }) => disk);
    const { disks, devices } = place({ ...config, disks: wanted }, ports, undefined, switchPorts);
    for (const device of devices) checkMemoryShared(device, sharedMemory);
    checkMemory(memoryMib, await this.#availableMemoryMib());
    const { loadDevicesFrom } = options;
    const args = qemuArguments({
      id,
      files,
      acceleration,
      memoryMib,
      cpus,
      memoryMaxMib,
      cpusMax,
      pluggedCpus,
      boot,
      disks,
      devices,
      sharedMemory,
      wakePort,
      ports,
      switchPorts,
      memoryFile,
      incoming: loadDevicesFrom !== undefined,
    });
    const started = await launch({
      binary: this.#binary,
      args,
      files,
      networkNamespace: config.networkNamespace,
      timeoutMs: this.#startTimeoutMs,
      signal: options.signal,
      loadDevicesFrom,
      loadDevicesAt: options.loadDevicesAt,
      onSpawn: options.onSpawn,
      fillMemory: options.fillMemory,
      memory: config,
    });
    const still = {
      id,
      runDir,
      acceleration,
      memoryMib,
      cpus,
      memoryMaxMib,
      cpusMax,
      sharedMemory,
      wakePort,
      ports,
      switchPorts,
      memoryFile,
    };
    const parts = { ...still, plugged: { memoryMib: 0, cpus: pluggedCpus ?? 0 }, disks, devices, files };
    const vm = new QemuVm({ ...parts, ...started, log: this.#log });
    if (loadDevicesFrom === undefined) return vm;
    try {
      // The device state may have brought more.
      await vm.size();
      return vm;
    } catch (error) {
      await vm.kill();
      throw error;
    }
  }

  async compatibility(config: VmConfig): Promise<string> {
    return await compatibility(await qemuInfo(this.#binary), config);
  }

  async traits(config: VmConfig): Promise<MachineTraits> {
    return await traits(await qemuInfo(this.#binary), config);
  }

  async attach(state: VmState): Promise<Vm> {
    const { id, runDir, acceleration, memoryMib, cpus, memoryMaxMib, cpusMax, memoryFile, vmm } = state;
    const { sharedMemory = false, wakePort = false, ports = 0, switchPorts = 0 } = state;
    if (!(await isAlive(vmm))) {
      throw new BelljarError("VMM_DIED", `the process ${vmm.pid} of the VM ${id} is gone`, { facts: { pid: vmm.pid } });
    }
    const files = runFiles(runDir);
    const { disks: said, devices } = place(state, ports, undefined, switchPorts);
    using limit = startSignal(this.#startTimeoutMs, undefined, "answer the process that takes it over");
    const { qmp, console } = await openConnections(files, limit.signal, async () => {
      if (!(await isAlive(vmm))) throw new BelljarError("VMM_DIED", `QEMU ended while it was being taken over`);
    });
    const found = async () => ({
      plugged: await queryPlugged(qmp, state, state.pluggedCpus ?? 0),
      disks: await findOverlays(qmp, said),
    });
    const { plugged, disks } = await found().catch((error: unknown) => {
      qmp.close();
      console.close();
      throw error;
    });
    const process = adoptVmm(vmm, qmp.closed);
    return new QemuVm({
      id,
      runDir,
      acceleration,
      memoryMib,
      cpus,
      sharedMemory,
      wakePort,
      ports,
      switchPorts,
      memoryMaxMib,
      cpusMax,
      plugged,
      disks,
      devices,
      memoryFile,
      files,
      process,
      qmp,
      console,
      log: this.#log,
    });
  }
}
