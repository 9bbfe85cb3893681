/**
 * A QEMU that was started for a guest which is not there yet. What is of the guest alone comes with it: disks and devices are plugged at the
 * places that they had, which QEMU takes for what was there from the start, since the state that is loaded says so.
 */
import type { Log, ProcessIdentity } from "../../base/index.ts";
import type { LoadOptions, Vm, VmConfig, WaitingVmm } from "../interface.ts";
import { deviceParts } from "./device-arguments.ts";
import { diskParts } from "./disk-arguments.ts";
import { plug } from "./hotplug.ts";
import { type Launched, startSignal } from "./launch.ts";
import { fillGuest, loadGuest } from "./load-guest.ts";
import { QemuVm } from "./qemu-vm.ts";
import { removeRunFiles, runFiles } from "./run-files.ts";
import { partsOf, sized } from "./vm-parts.ts";
import { killProcess } from "./vmm-process.ts";

export class WaitingQemu implements WaitingVmm {
  readonly vmm: ProcessIdentity;
  readonly ended: Promise<unknown>;
  readonly #config: VmConfig;
  readonly #launched: Launched;
  readonly #timeoutMs: number;
  readonly #log: Log;

  constructor(config: VmConfig, launched: Launched, timeoutMs: number, log: Log) {
    this.vmm = launched.process.identity;
    this.ended = launched.process.ended;
    this.#config = config;
    this.#launched = launched;
    this.#timeoutMs = timeoutMs;
    this.#log = log;
  }

  async load(config: VmConfig, options: LoadOptions): Promise<Vm> {
    const { qmp } = this.#launched;
    const { incomingSocket } = runFiles(this.#config.runDir);
    using limit = startSignal(this.#timeoutMs, options.signal, "load a guest");
    try {
      const parts = partsOf(config);
      const told = options.onSpawn?.(this.vmm);
      told?.catch(() => {});
      const { fillMemory, ...rest } = options;
      const filling = fillGuest(this.#launched, fillMemory, config);
      filling.catch(() => {});
      // Each has a place of its own: QEMU need not wait between them.
      const plugs = [...parts.disks.map(diskParts), ...parts.devices.map(deviceParts)].map((each) => plug(qmp, each));
      await Promise.allSettled(plugs);
      await Promise.all(plugs);
      await filling;
      await loadGuest(this.#launched, rest, config, incomingSocket, limit.signal);
      await told;
      return await sized(new QemuVm({ ...parts, ...this.#launched, log: this.#log }));
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  async kill(): Promise<void> {
    const { process, qmp, console } = this.#launched;
    qmp.close();
    console.close();
    await killProcess(process.identity);
    await process.ended;
    await removeRunFiles(runFiles(this.#config.runDir));
  }
}
