/** Guests' memory without memory: a VM has three pages of its own, whose bytes say which save they are of. A test can make a save fail. */
import { copyFile, readFile, stat, writeFile } from "node:fs/promises";
import { BelljarError } from "../../src/base/index.ts";
import { countPages, type GuestMemory, PAGE_BYTES } from "../../src/checkpoint/index.ts";

export class MemoryGuestMemory implements GuestMemory {
  /** What was put into VMs, in order: the first byte of the pages. */
  readonly loaded: number[] = [];
  failNext: BelljarError | undefined;
  #saves = 0;

  readonly prepare: GuestMemory["prepare"] = async (_pid, _blocks, path) => {
    await writeFile(path, "", { flag: "wx" });
    return { runs: [] };
  };

  readonly save: GuestMemory["save"] = async (_pid, blocks, path) => {
    const error = this.failNext;
    this.failNext = undefined;
    if (error !== undefined) throw error;
    this.#saves += 1;
    const bytes = Buffer.alloc(3 * PAGE_BYTES, this.#saves);
    const pages = blocks.map(({ name, sizeBytes }) => ({ name, sizeBytes, runs: Uint32Array.of(1, 2, 7, 1) }));
    return { blocks: pages, write: async () => await writeFile(path, bytes, { flag: "r+" }) };
  };

  readonly load: GuestMemory["load"] = async (_pid, _blocks, pages, { path, at }) => {
    const bytes = countPages(pages) * PAGE_BYTES;
    if ((await stat(path)).size !== at + bytes) throw new BelljarError("DISK_FAILED", `${path} is too short`);
    this.loaded.push((await readFile(path))[at] ?? -1);
  };

  readonly lay: GuestMemory["lay"] = async (_pages, path, target) => {
    await copyFile(path, target);
  };

  readonly close: GuestMemory["close"] = async () => {};
}
