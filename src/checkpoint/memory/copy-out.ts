/**
 * Guests' memory out of their VMMs, in one of the threads that move it: looked for, copied while the guest stands still, and written to its
 * file when that is over.
 */
import { ftruncateSync, statfsSync, writeSync } from "node:fs";
import { freemem } from "node:os";
import { BelljarError, checkpointLimits } from "../../base/index.ts";
import type { LookRequest, PrepareRequest, SaveRequest, WriteRequest } from "./messages.ts";
import { ended, findAllOwn, withFile } from "./own-pages.ts";
import { countPages, PAGE_BYTES, type PageRuns } from "./page-runs.ts";
import { ProcessPages } from "./process-memory.ts";

/**
 * What is copied while the guest stands still and written afterwards. What is more than there is room for in memory is written while it
 * stands still: to pages that the kernel has found for the file before, since finding them takes it longer than all the rest.
 */
const { stageKeptBytes, stageMaxBytes, stageSlackBytes, stageIdleMs, stageCountTimeoutMs } = checkpointLimits;
/** Of what the host could give, each thread takes no more than this part. */
const HOST_SHARE = 1 / 8;
/** Goes through the caches of a CPU. */
const DIRECT_BYTES = 1024 * 1024;
const ORDER_FAILED = -2n;

/** For all that need no more. */
let kept: Buffer | undefined;
/** For those that do, by the file that they go into, until they have. */
const stages = new Map<string, { readonly buffer: Buffer; readonly timer: NodeJS.Timeout }>();
/** What was copied, by the file that it goes into. */
const copies = new Map<string, { readonly sink: Sink; readonly timer: NodeJS.Timeout }>();

export function look({ pid, blocks, path }: LookRequest): readonly PageRuns[] {
  const found = findAllOwn(pid, blocks);
  const bytes = countBytes(found);
  withFile(path, "wx", () => {});
  const { bfree, bsize } = statfsSync(path);
  if (bfree * bsize >= bytes) return found;
  throw new BelljarError("DISK_FULL", `no room is left for the guest's memory: ${path} would have ${bytes} bytes`);
}

/** The kernel finds memory when it is first written to: not while a guest stands still. */
export function prepare({ path, at, bytes }: PrepareRequest): void {
  const room = makeStage(path, bytes + stageSlackBytes);
  if (bytes <= room) return;
  withFile(path, "r+", (out) => {
    const zeros = Buffer.alloc(DIRECT_BYTES);
    const end = at + bytes - room;
    for (let next = at; next < end; ) next += writeSync(out, zeros, 0, Math.min(zeros.length, end - next), next);
  });
}

/** Answers how many bytes there is room for. */
function makeStage(path: string, wanted: number): number {
  stageOf(path);
  const bytes = Math.floor(Math.min(wanted, stageMaxBytes, freemem() * HOST_SHARE));
  if (bytes <= stageKeptBytes) {
    // Into memory that is not in a CPU's cache copying takes twice as long.
    if (!isKeptUsed()) kept?.fill(1, 0, bytes);
    return stageKeptBytes;
  }
  const buffer = Buffer.from(new ArrayBuffer(bytes)).fill(1);
  stages.set(path, { buffer, timer: setTimeout(() => letGo(path), stageIdleMs).unref() });
  return bytes;
}

function stageOf(path: string): Buffer {
  kept ??= Buffer.alloc(stageKeptBytes).fill(1);
  return stages.get(path)?.buffer ?? kept;
}

/** It has what is to be written yet. */
function isKeptUsed(): boolean {
  return [...copies.values()].some(({ sink }) => sink.buffer === kept);
}

/** The memory goes back to the host at once. */
function letGo(path: string): void {
  clearTimeout(copies.get(path)?.timer);
  copies.delete(path);
  const found = stages.get(path);
  if (found === undefined) return;
  stages.delete(path);
  clearTimeout(found.timer);
  if (found.buffer.buffer instanceof ArrayBuffer) found.buffer.buffer.transfer(0);
}

export function save({ pid, blocks, path, order, comes }: SaveRequest): readonly PageRuns[] {
  const buffer = stageOf(path);
  const first = new BigInt64Array(order);
  const isFirst = comes === "first";
  try {
    // Another guest's memory may be where this one's is going to be, if it has only just gone on.
    if (buffer === kept) for (const { sink } of copies.values()) if (sink.buffer === kept) sink.end();
    const found = findAllOwn(pid, blocks);
    const bytes = countBytes(found);
    if (isFirst) tell(first, BigInt(bytes));
    const sink = new Sink(path, buffer, bytes, isFirst ? undefined : first);
    const parts = found.map((runs, index) => ({ address: blocks[index]?.address ?? 0, runs }));
    copyOut(new ProcessPages(pid, parts), bytes, sink);
    copies.set(path, { sink, timer: setTimeout(() => letGo(path), stageIdleMs).unref() });
    return found;
  } catch (error) {
    if (isFirst && first[0] === -1n) tell(first, ORDER_FAILED);
    letGo(path);
    throw error;
  }
}

export function write({ path }: WriteRequest): void {
  const copy = copies.get(path);
  if (copy === undefined) throw new BelljarError("DISK_FAILED", `what was copied for ${path} was let go`);
  try {
    copy.sink.end();
  } finally {
    letGo(path);
  }
  if (copy.sink.failure !== undefined) throw copy.sink.failure;
}

function tell(order: BigInt64Array, value: bigint): void {
  Atomics.store(order, 0, value);
  Atomics.notify(order, 0);
}

/** Where the last half begins. */
function beginning(order: BigInt64Array): number {
  Atomics.wait(order, 0, -1n, stageCountTimeoutMs);
  const bytes = Atomics.load(order, 0);
  if (bytes < 0n) throw new BelljarError("DISK_FAILED", "the first half of the memory was not copied");
  return Number(bytes);
}

function countBytes(all: readonly PageRuns[]): number {
  return PAGE_BYTES * countPages(all.map((runs) => ({ runs })));
}

function copyOut(pages: ProcessPages, bytes: number, sink: Sink): void {
  for (let left = bytes; left > 0; ) {
    const { buffer, from, room } = sink.space();
    const read = pages.read(buffer, from, Math.min(room, left));
    if (read === 0) throw ended("the room for the guest's memory");
    sink.filled(read);
    left -= read;
  }
}

/** Writes what there is no room for in memory, which is the first of it, and keeps the rest until its `end`. */
class Sink {
  readonly buffer: Buffer;
  /** Why the file has not got everything. */
  failure: unknown;
  readonly #path: string;
  /** Says where in the file all that begins, when the first half is counted; undefined of that itself. */
  readonly #order: BigInt64Array | undefined;
  /** What is still to be written at once. */
  #direct: number;
  #used = 0;
  #written = 0;
  #hasEnded = false;

  constructor(path: string, buffer: Buffer, bytes: number, order: BigInt64Array | undefined) {
    this.#path = path;
    this.buffer = buffer;
    this.#order = order;
    this.#direct = Math.max(0, bytes - buffer.length);
  }

  space(): { readonly buffer: Buffer; readonly from: number; readonly room: number } {
    const end = this.#direct > 0 ? Math.min(this.#direct, DIRECT_BYTES) : this.buffer.length;
    return { buffer: this.buffer, from: this.#used, room: end - this.#used };
  }

  filled(bytes: number): void {
    this.#used += bytes;
    if (this.#direct === 0 || this.#used < Math.min(this.#direct, DIRECT_BYTES)) return;
    this.#direct -= this.#used;
    withFile(this.#path, "r+", (file) => this.#flush(file));
  }

  /** Everything is in the file then, or there is a `failure`. Idempotent. */
  end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    try {
      withFile(this.#path, "r+", (file) => {
        this.#flush(file);
        if (this.#order !== undefined) ftruncateSync(file, beginning(this.#order) + this.#written);
      });
    } catch (error) {
      this.failure = error;
    }
  }

  #flush(file: number): void {
    const begin = this.#order === undefined ? 0 : beginning(this.#order);
    for (let at = 0; at < this.#used; )
      at += writeSync(file, this.buffer, at, this.#used - at, begin + this.#written + at);
    this.#written += this.#used;
    this.#used = 0;
  }
}
