/** The /dev/shm that containers of the sandbox share when they ask for it: one tmpfs in the guest, resized in place. */
import { mkdir } from "node:fs/promises";
import { BelljarError } from "../src/base/errors.ts";
import type { BindMount } from "./spec-changes.ts";
import type { RunTool } from "./tools.ts";
import { Turns } from "./turns.ts";

/** Unless the host says otherwise; as a container of its own has it. */
const DEFAULT_BYTES = 64n * 1024n * 1024n;
const PAGE_BYTES = 4096n;

export class SharedMemory {
  readonly #dir: string;
  readonly #runTool: RunTool;
  #mounted = false;
  readonly #turns = new Turns();

  constructor(dir: string, runTool: RunTool) {
    this.#dir = dir;
    this.#runTool = runTool;
  }

  /** @throws BelljarError `INVALID_ARGUMENT` for less than what is in it; the size stays then */
  async resize(bytes: bigint): Promise<void> {
    await this.#turns.take(() => this.#apply(bytes));
  }

  /** What a container mounts; makes it unless it is there. */
  async mount(): Promise<BindMount> {
    await this.#turns.take(async () => {
      if (!this.#mounted) await this.#apply(DEFAULT_BYTES);
    });
    return { source: this.#dir, destination: "/dev/shm", options: ["nosuid", "noexec", "nodev"] };
  }

  async #apply(bytes: bigint): Promise<void> {
    const pages = (bytes + PAGE_BYTES - 1n) / PAGE_BYTES;
    const options = `nosuid,noexec,nodev,mode=1777,size=${pages * PAGE_BYTES}`;
    if (this.#mounted) {
      await this.#runTool("busybox", ["mount", "-o", `remount,${options}`, this.#dir]).catch((cause: unknown) => {
        throw new BelljarError("INVALID_ARGUMENT", `the shared memory cannot have ${bytes} bytes`, { cause });
      });
      return;
    }
    await mkdir(this.#dir, { recursive: true, mode: 0o755 });
    await this.#runTool("busybox", ["mount", "-t", "tmpfs", "-o", options, "shm", this.#dir]);
    this.#mounted = true;
  }
}
