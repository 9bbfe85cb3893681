/**
 * A QEMU that was started for a guest which is not there yet. What is of the guest alone comes with it: disks and devices that QEMU was not
 * started with are plugged at the places that they had, which it takes for what was there from the start, since the state that is loaded
 * says so.
 */
import { isDeepStrictEqual } from "node:util";
import { BelljarError, type Log, type ProcessIdentity } from "../../base/index.ts";
import type { LoadOptions, MemoryBlock, Vm, VmConfig, WaitingVmm } from "../interface.ts";
import { deviceParts } from "./device-arguments.ts";
import { expectDevices, loadDevices } from "./device-state.ts";
import { diskParts } from "./disk-arguments.ts";
import { plug } from "./hotplug.ts";
import { type Launched, startSignal } from "./launch.ts";
import { findMemoryBlocks } from "./memory-blocks.ts";
import type { PlugParts } from "./plug-parts.ts";
import { QemuVm } from "./qemu-vm.ts";
import { removeRunFiles, runFiles } from "./run-files.ts";
import { partsOf, sized } from "./vm-parts.ts";
import { killProcess } from "./vmm-process.ts";

export class WaitingQemu implements WaitingVmm {
  readonly vmm: ProcessIdentity;
  readonly ended: Promise<unknown>;
  readonly #config: VmConfig;
  readonly #launched: Launched;
  readonly #blocks: readonly MemoryBlock[];
  readonly #timeoutMs: number;
  readonly #log: Log;

  private constructor(
    config: VmConfig,
    launched: Launched,
    blocks: readonly MemoryBlock[],
    timeoutMs: number,
    log: Log,
  ) {
    this.vmm = launched.process.identity;
    this.ended = launched.process.ended;
    this.#config = config;
    this.#launched = launched;
    this.#blocks = blocks;
    this.#timeoutMs = timeoutMs;
    this.#log = log;
  }

  /** Whatever can be said before there is a guest is said now. On an error the QEMU has ended. */
  static async create(config: VmConfig, launched: Launched, timeoutMs: number, log: Log): Promise<WaitingQemu> {
    const { qmp } = launched;
    try {
      await expectDevices(qmp);
      return new WaitingQemu(config, launched, await findMemoryBlocks(qmp, config), timeoutMs, log);
    } catch (error) {
      await end(launched, config);
      throw error;
    }
  }

  async load(config: VmConfig, options: LoadOptions): Promise<Vm> {
    const { qmp } = this.#launched;
    const { incomingSocket } = runFiles(this.#config.runDir);
    using limit = startSignal(this.#timeoutMs, options.signal, "load a guest");
    try {
      const parts = partsOf(config);
      const added = missing(plugParts(parts), plugParts(partsOf(this.#config)));
      const told = options.onSpawn?.(this.vmm);
      told?.catch(() => {});
      const filling = options.fillMemory?.(this.vmm, this.#blocks);
      filling?.catch(() => {});
      // Each has a place of its own: QEMU need not wait between them.
      const plugs = added.map((each) => plug(qmp, each));
      await Promise.allSettled(plugs);
      await Promise.all(plugs);
      await filling;
      const { loadDevicesFrom: path, loadDevicesAt: at = 0 } = options;
      await loadDevices(qmp, incomingSocket, { path, at }, limit.signal);
      await told;
      return await sized(new QemuVm({ ...parts, ...this.#launched, log: this.#log }));
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  async kill(): Promise<void> {
    await end(this.#launched, this.#config);
  }
}

function plugParts({ disks, devices }: ReturnType<typeof partsOf>): readonly PlugParts[] {
  return [...disks.map(diskParts), ...devices.map(deviceParts)];
}

/** Those that are not there. What is there and is not wanted, or not as it is, does not go without a guest that lets go of it. */
function missing(wanted: readonly PlugParts[], had: readonly PlugParts[]): readonly PlugParts[] {
  const isIn = (list: readonly PlugParts[], part: PlugParts): boolean =>
    list.some((each) => isDeepStrictEqual(each, part));
  const other = had.find((part) => !isIn(wanted, part));
  if (other === undefined) return wanted.filter((part) => !isIn(had, part));
  throw new BelljarError("VMM_START_FAILED", `the VMM waits with another ${other.what} than the guest has`);
}

async function end({ process, qmp, console }: Launched, { runDir }: VmConfig): Promise<void> {
  qmp.close();
  console.close();
  await killProcess(process.identity);
  await process.ended;
  await removeRunFiles(runFiles(runDir));
}
