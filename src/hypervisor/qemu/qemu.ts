/** QEMU as a `Hypervisor`: starts VMs, takes over those that another process started. */
import { BelljarError, isAlive, type Log, messageChain, vmmLimits } from "../../base/index.ts";
import type {
  Hypervisor,
  HypervisorInfo,
  MachineTraits,
  StartOptions,
  Vm,
  VmConfig,
  VmState,
  WaitingVmm,
} from "../interface.ts";
import { qemuArguments, x86 } from "./arguments.ts";
import { compatibility, traits } from "./compatibility.ts";
import { queryPlugged } from "./growth.ts";
import { checkMemory, readAvailableMib } from "./host-memory.ts";
import { type Launched, type LaunchPlan, launch, openConnections, startSignal } from "./launch.ts";
import { loadGuest } from "./load-guest.ts";
import { findOverlays } from "./overlays.ts";
import { place } from "./placement.ts";
import { qemuInfo } from "./qemu-binary.ts";
import { QemuVm } from "./qemu-vm.ts";
import { runFiles } from "./run-files.ts";
import { makeTranslationRoom } from "./translation-room.ts";
import { partsOf, sized } from "./vm-parts.ts";
import { adoptVmm } from "./vmm-process.ts";
import { WaitingQemu } from "./waiting-qemu.ts";

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
    const { loadDevicesFrom, loadDevicesAt, fillMemory } = options;
    const load = loadDevicesFrom === undefined ? undefined : { loadDevicesFrom, loadDevicesAt, fillMemory };
    const { incomingSocket } = runFiles(config.runDir);
    const started = await this.#launch(config, load !== undefined, options, async (launched, signal) => {
      if (load === undefined) await launched.qmp.execute("cont", {}, { signal });
      else await loadGuest(launched, load, config, incomingSocket, signal);
    });
    const vm = new QemuVm({ ...partsOf(config), ...started, log: this.#log });
    return load === undefined ? vm : await sized(vm);
  }

  async startWaiting(config: VmConfig, options: Pick<StartOptions, "signal" | "onSpawn"> = {}): Promise<WaitingVmm> {
    const launched = await this.#launch(config, true, options, async () => {});
    if (config.acceleration === "tcg") {
      // Without it a copy takes longer, and that is all.
      await makeTranslationRoom(launched.process.identity.pid).catch((error: unknown) => {
        this.#log.debug("a VMM that waits has no room for translated code", { cause: messageChain(error).join(": ") });
      });
    }
    return await WaitingQemu.create(config, launched, this.#startTimeoutMs, this.#log);
  }

  async #launch(
    config: VmConfig,
    incoming: boolean,
    { signal, onSpawn }: Pick<StartOptions, "signal" | "onSpawn">,
    begin: LaunchPlan["begin"],
  ): Promise<Launched> {
    const { boot, networkNamespace } = config;
    const parts = partsOf(config);
    checkMemory(config.memoryMib, await this.#availableMemoryMib());
    const { pluggedCpus } = config;
    return await launch({
      binary: this.#binary,
      args: qemuArguments({ ...parts, pluggedCpus, boot, incoming }),
      files: parts.files,
      networkNamespace,
      timeoutMs: this.#startTimeoutMs,
      signal,
      onSpawn,
      begin,
    });
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
