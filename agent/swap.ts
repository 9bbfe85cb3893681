/** Disks that the guest swaps to, by their serial numbers. What is on them is worth nothing before and after. */
import { writeFile } from "node:fs/promises";
import { BelljarError } from "../src/base/errors.ts";
import { findDisk } from "./disks.ts";
import type { RunTool } from "./tools.ts";

export interface SwapDeps {
  readonly runTool: RunTool;
  readonly procDir: string;
  readonly sysDir: string;
  readonly devDir: string;
}

/** As the kernel has it. */
const SWAPPINESS_MAX = 200;

export class Swap {
  readonly #deps: SwapDeps;
  /** Device nodes, by serial number. */
  readonly #devices = new Map<string, string>();

  constructor(deps: SwapDeps) {
    this.#deps = deps;
  }

  /** @throws BelljarError `INVALID_ARGUMENT`, `AGENT_FAILED`; the disk is not in use then */
  async on(serial: string): Promise<void> {
    if (this.#devices.has(serial)) {
      throw new BelljarError("INVALID_ARGUMENT", `the guest swaps to the disk ${serial} already`);
    }
    const device = await findDisk(serial, this.#deps);
    this.#devices.set(serial, device);
    try {
      await this.#deps.runTool("busybox", ["mkswap", device]);
      await this.#deps.runTool("busybox", ["swapon", device]);
    } catch (error) {
      this.#devices.delete(serial);
      throw error;
    }
  }

  /** Brings what is on it back into memory. Idempotent. */
  async off(serial: string): Promise<void> {
    const device = this.#devices.get(serial);
    if (device === undefined) return;
    await this.#deps.runTool("busybox", ["swapoff", device]);
    this.#devices.delete(serial);
  }

  /** Of the guest as a whole. @throws BelljarError `INVALID_ARGUMENT` */
  async setSwappiness(swappiness: number): Promise<void> {
    if (swappiness > SWAPPINESS_MAX) {
      throw new BelljarError("INVALID_ARGUMENT", `a swappiness of ${swappiness} is above ${SWAPPINESS_MAX}`);
    }
    await writeFile(`${this.#deps.procDir}/sys/vm/swappiness`, String(swappiness));
  }
}
