/**
 * Guests' memory, out of and into their VMMs' processes: by two threads, each of which moves half of it. One guest at a time: a second one
 * that is stopped while the first one's memory is copied would only stand still for longer.
 */
import { BelljarError, publishStep } from "../../base/index.ts";
import type { MemoryBlock } from "../../hypervisor/interface.ts";
import { Turns } from "../../store/index.ts";
import { halvePlaces, halveRuns, joinRuns, type Place } from "./halves.ts";
import { MemoryThread } from "./memory-thread.ts";
import { type BlockPages, countPages, PAGE_BYTES, type PageRuns } from "./page-runs.ts";

/** Of which pages a file that was made has room for. */
export interface PreparedPages {
  readonly runs: readonly PageRuns[];
}

export interface SavedMemory {
  readonly blocks: readonly BlockPages[];
  /** Puts them into the file; once, and soon: what is copied and not written is let go after a minute. */
  readonly write: () => Promise<void>;
}

/** Pages one after the other, from a byte of a file on. */
export interface PagesFile {
  readonly path: string;
  readonly at: number;
}

export interface GuestMemory {
  /**
   * Makes the file of a `save` that comes next, and does what needs no guest that stands still: finding room for what is the VM's own.
   * @throws BelljarError as `save`
   */
  prepare(pid: number, blocks: readonly MemoryBlock[], path: string): Promise<PreparedPages>;
  /**
   * Copies the pages that are the VM's own; the guest may run on then, and should before they are written.
   * @throws BelljarError `VMM_DIED` when the process is gone, `DISK_FULL`
   */
  save(pid: number, blocks: readonly MemoryBlock[], path: string, prepared: PreparedPages): Promise<SavedMemory>;
  /** Puts the pages of a file into a VMM whose guest does not run. */
  load(pid: number, blocks: readonly MemoryBlock[], pages: readonly BlockPages[], file: PagesFile): Promise<void>;
  /** Puts pages of main memory into a file of it. */
  lay(pages: BlockPages, path: string, target: string): Promise<void>;
  close(): Promise<void>;
}

export function createGuestMemory(): GuestMemory {
  return new ThreadedMemory();
}

class ThreadedMemory implements GuestMemory {
  readonly #turns = new Turns("memory of guests");
  readonly #first = new MemoryThread();
  readonly #second = new MemoryThread();

  async prepare(pid: number, blocks: readonly MemoryBlock[], path: string): Promise<PreparedPages> {
    const runs = await this.#first.ask({ kind: "look", pid, blocks: placesOf(blocks), path });
    const pages = pagesOf(runs);
    const middle = Math.ceil(pages / 2) * PAGE_BYTES;
    await allOf([
      this.#first.ask({ kind: "prepare", path, at: 0, bytes: middle }),
      this.#second.ask({ kind: "prepare", path, at: middle, bytes: pages * PAGE_BYTES - middle }),
    ]);
    return { runs };
  }

  async save(pid: number, blocks: readonly MemoryBlock[], path: string, prepared: PreparedPages): Promise<SavedMemory> {
    const halves = halvePlaces(placesOf(blocks), prepared.runs);
    const order = new SharedArrayBuffer(8);
    new BigInt64Array(order).fill(-1n);
    const [first = [], second = []] = await publishStep("host", "save memory", () =>
      allOf([
        this.#first.ask({ kind: "save", pid, blocks: halves[0], path, order, comes: "first" }),
        this.#second.ask({ kind: "save", pid, blocks: halves[1], path, order, comes: "last" }),
      ]),
    );
    const runs = joinRuns([first, second], halves);
    const found = blocks.map(({ name, sizeBytes }, index) => ({ name, sizeBytes, runs: runs[index] ?? NONE }));
    return { blocks: found, write: async () => await this.#write(path) };
  }

  async load(
    pid: number,
    blocks: readonly MemoryBlock[],
    pages: readonly BlockPages[],
    { path, at }: PagesFile,
  ): Promise<void> {
    const places = pages.map(({ name, sizeBytes }) => {
      const block = blocks.find((each) => each.name === name);
      if (block !== undefined && block.sizeBytes === sizeBytes) return { address: block.address };
      throw new BelljarError("CHECKPOINT_MISMATCH", `the VM has no block ${name} of ${sizeBytes} bytes of memory`);
    });
    const [before, after] = halveRuns(pages.map(({ runs }) => runs));
    const middle = at + pagesOf(before) * PAGE_BYTES;
    await this.#turns.take(() =>
      allOf([
        this.#first.ask({ kind: "load", pid, blocks: places, runs: before, path, at }),
        this.#second.ask({ kind: "load", pid, blocks: places, runs: after, path, at: middle }),
      ]),
    );
  }

  async lay({ runs }: BlockPages, path: string, target: string): Promise<void> {
    await this.#turns.take(() => this.#first.ask({ kind: "lay", runs, path, target }));
  }

  async #write(path: string): Promise<void> {
    await publishStep("host", "write memory", () =>
      allOf([this.#first.ask({ kind: "write", path }), this.#second.ask({ kind: "write", path })]),
    );
  }

  async close(): Promise<void> {
    await this.#turns.take(async () => {});
    await Promise.all([this.#first.close(), this.#second.close()]);
  }
}

const NONE = new Uint32Array(0);

/** Looking for pages takes two milliseconds per GiB while the guest stands still: not where there can be none. */
function placesOf(blocks: readonly MemoryBlock[]): readonly Place[] {
  return blocks.map(({ address, sizeBytes, isUnused }) => ({ address, sizeBytes: isUnused ? 0 : sizeBytes }));
}

/** Nothing of it is under way when this settles; with the first failure, if any has failed. */
async function allOf<T>(works: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return await Promise.all(works);
}

function pagesOf(runs: readonly PageRuns[]): number {
  return countPages(runs.map((each) => ({ runs: each })));
}
