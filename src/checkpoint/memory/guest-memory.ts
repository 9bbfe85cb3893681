/**
 * Guests' memory, out of and into their VMMs' processes: asked of a thread that is started when it is first needed. One thing at a time:
 * a second guest that is stopped while the first one's memory is copied would only stand still for longer.
 */
import { Worker } from "node:worker_threads";
import { BelljarError, publishStep } from "../../base/index.ts";
import type { MemoryBlock } from "../../hypervisor/interface.ts";
import { Turns } from "../../store/index.ts";
import type { LayRequest, LoadRequest, MemoryAnswer, MemoryRequest, PrepareRequest, SaveRequest } from "./messages.ts";
import type { BlockPages } from "./page-runs.ts";

export interface SavedMemory {
  readonly blocks: readonly BlockPages[];
  /** Settles when the file has everything. */
  readonly written: Promise<void>;
}

/** Pages one after the other, from a byte of a file on. */
export interface PagesFile {
  readonly path: string;
  readonly at: number;
}

export interface GuestMemory {
  /**
   * Makes the file of a `save` that comes next, and does what needs no guest that stands still: finding room in it for what is the VM's own.
   * @throws BelljarError as `save`
   */
  prepare(pid: number, blocks: readonly MemoryBlock[], path: string): Promise<void>;
  /**
   * Copies the pages that are the VM's own into that file; resolves when the guest may run on.
   * @throws BelljarError `VMM_DIED` when the process is gone, `DISK_FULL`
   */
  save(pid: number, blocks: readonly MemoryBlock[], path: string): Promise<SavedMemory>;
  /** Puts the pages of a file into a VMM whose guest does not run. */
  load(pid: number, blocks: readonly MemoryBlock[], pages: readonly BlockPages[], file: PagesFile): Promise<void>;
  /** Puts pages of main memory into a file of it. */
  lay(pages: BlockPages, path: string, target: string): Promise<void>;
  close(): Promise<void>;
}

type Wish<T extends MemoryRequest> = Omit<T, "id">;

interface Waiting {
  readonly copied: PromiseWithResolvers<Extract<MemoryAnswer, { kind: "copied" }>>;
  readonly done: PromiseWithResolvers<void>;
}

export function createGuestMemory(): GuestMemory {
  return new ThreadedMemory();
}

class ThreadedMemory implements GuestMemory {
  readonly #turns = new Turns("memory of guests");
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #lastId = 0;

  async prepare(pid: number, blocks: readonly MemoryBlock[], path: string): Promise<void> {
    await this.#ask<PrepareRequest>({ kind: "prepare", pid, blocks: placesOf(blocks), path }).done;
  }

  async save(pid: number, blocks: readonly MemoryBlock[], path: string): Promise<SavedMemory> {
    const { copied, done } = this.#ask<SaveRequest>({ kind: "save", pid, blocks: placesOf(blocks), path });
    const { runs } = await publishStep("host", "save memory", () => Promise.race([copied, never(done)]));
    const found = blocks.map(({ name, sizeBytes }, index) => ({ name, sizeBytes, runs: runs[index] ?? NONE }));
    return { blocks: found, written: done };
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
    const runs = pages.map((each) => each.runs);
    await this.#turns.take(() => this.#ask<LoadRequest>({ kind: "load", pid, blocks: places, runs, path, at }).done);
  }

  async lay({ runs }: BlockPages, path: string, target: string): Promise<void> {
    await this.#turns.take(() => this.#ask<LayRequest>({ kind: "lay", runs, path, target }).done);
  }

  async close(): Promise<void> {
    await this.#turns.take(async () => {});
    await Promise.allSettled([...this.#waiting.values()].map(({ done }) => done.promise));
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }

  #ask<T extends MemoryRequest>(wish: Wish<T>): { copied: Waiting["copied"]["promise"]; done: Promise<void> } {
    this.#lastId += 1;
    const id = this.#lastId;
    const waiting: Waiting = { copied: Promise.withResolvers(), done: Promise.withResolvers() };
    waiting.copied.promise.catch(() => {});
    waiting.done.promise.catch(() => {});
    this.#waiting.set(id, waiting);
    const worker = this.#started();
    worker.ref();
    worker.postMessage({ ...wish, id });
    return { copied: waiting.copied.promise, done: waiting.done.promise };
  }

  #started(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(new URL("./memory-worker.ts", import.meta.url), { name: "belljar-memory" });
    worker.on("message", (answer: MemoryAnswer) => this.#onAnswer(worker, answer));
    worker.on("error", (error) => this.#onEnd(worker, error));
    worker.on("exit", () => this.#onEnd(worker, undefined));
    this.#worker = worker;
    return worker;
  }

  #onAnswer(worker: Worker, answer: MemoryAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    if (waiting === undefined) return;
    if (answer.kind === "copied") {
      waiting.copied.resolve(answer);
      return;
    }
    this.#waiting.delete(answer.id);
    // Nobody waits: the program may end.
    if (this.#waiting.size === 0) worker.unref();
    if (answer.kind === "done") waiting.done.resolve();
    else for (const each of [waiting.copied, waiting.done]) each.reject(asError(answer));
  }

  #onEnd(worker: Worker, cause: unknown): void {
    if (this.#worker === worker) this.#worker = undefined;
    const error = new BelljarError("INTERNAL", "the thread that moves memory has ended", { cause });
    for (const { copied, done } of this.#waiting.values()) for (const each of [copied, done]) each.reject(error);
    this.#waiting.clear();
  }
}

const NONE = new Uint32Array(0);

/** Looking for pages takes two milliseconds per GiB while the guest stands still: not where there can be none. */
function placesOf(blocks: readonly MemoryBlock[]): SaveRequest["blocks"] {
  return blocks.map(({ address, sizeBytes, isUnused }) => ({ address, sizeBytes: isUnused ? 0 : sizeBytes }));
}

/** Fails when the work fails; otherwise leaves it to somebody else to come first. */
async function never(work: Promise<void>): Promise<never> {
  await work;
  return await new Promise<never>(() => {});
}

function asError({ code, message }: Extract<MemoryAnswer, { kind: "failed" }>): BelljarError {
  if (code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG") {
    return new BelljarError("DISK_FULL", `no room is left for the guest's memory: ${message}`);
  }
  if (code === "EACCES" || code === "EPERM") {
    return new BelljarError("PERMISSION_DENIED", `the VM's memory cannot be read: ${message}`);
  }
  if (code === "ESRCH" || message.includes("/proc/")) {
    return new BelljarError("VMM_DIED", `the VM's memory is gone: ${message}`);
  }
  return new BelljarError("DISK_FAILED", `the guest's memory could not be moved: ${message}`);
}
