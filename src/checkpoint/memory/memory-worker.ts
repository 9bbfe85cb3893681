/**
 * A thread that moves guests' memory: the only place of the program where files are read and written synchronously. What it does is
 * many thousands of small reads at addresses of another process, each of a microsecond, while a guest stands still.
 */
import { ftruncateSync, readSync, statfsSync, writeSync } from "node:fs";
import { freemem } from "node:os";
import { type MessagePort, parentPort } from "node:worker_threads";
import { BelljarError, checkpointLimits } from "../../base/index.ts";
import type { LookRequest, MemoryAnswer, MemoryRequest, PrepareRequest, SaveRequest } from "./messages.ts";
import { ended, findAllOwn, withFile } from "./own-pages.ts";
import { countPages, PAGE_BYTES, type PageRuns } from "./page-runs.ts";

/**
 * What is copied while the guest stands still and written afterwards. What is more than there is room for in memory is written while it
 * stands still: to pages that the kernel has found for the file before, since finding them takes it longer than all the rest.
 */
const { stageKeptBytes: keptBytes, stageMaxBytes: maxBytes } = checkpointLimits;
/** Of what the host could give, each thread takes no more than this part. */
const HOST_SHARE = 1 / 8;
/** What a guest writes between the look at it and its stop. */
const STAGE_SLACK_BYTES = 4 * 1024 * 1024;
/** Goes through the caches of a CPU. */
const DIRECT_BYTES = 1024 * 1024;
const CHUNK_BYTES = 4 * 1024 * 1024;
/** For the first half to be counted: longer than any guest takes. */
const ORDER_TIMEOUT_MS = 60_000;
const ORDER_FAILED = -2n;
/** After this nobody comes for memory that was made ready: longer than a freeze takes. */
const STAGE_IDLE_MS = 60_000;

/** For all that need no more. */
let kept: Buffer | undefined;
/** For those that do, by the file that they go into, until they have. */
const stages = new Map<string, { readonly buffer: Buffer; readonly timer: NodeJS.Timeout }>();

if (parentPort !== null) serve(parentPort);

function serve(port: MessagePort): void {
  port.on("message", (request: MemoryRequest) => {
    const { id } = request;
    const send = (answer: MemoryAnswer): void => port.postMessage(answer);
    try {
      switch (request.kind) {
        case "look":
          send({ id, kind: "copied", runs: look(request) });
          send({ id, kind: "done" });
          break;
        case "prepare":
          prepare(request);
          send({ id, kind: "done" });
          break;
        case "save":
          save(request, send);
          break;
        case "load":
          load(request);
          send({ id, kind: "done" });
          break;
        case "lay":
          lay(request);
          send({ id, kind: "done" });
      }
    } catch (error) {
      const isFull = error instanceof BelljarError && error.reason === "DISK_FULL";
      const code = isFull ? "ENOSPC" : error instanceof Error && "code" in error ? String(error.code) : "";
      send({ id, kind: "failed", code, message: error instanceof Error ? error.message : String(error) });
    }
  });
}

function look({ pid, blocks, path }: LookRequest): readonly PageRuns[] {
  const found = findAllOwn(pid, blocks);
  const bytes = countBytes(found);
  withFile(path, "wx", () => {});
  const { bfree, bsize } = statfsSync(path);
  if (bfree * bsize >= bytes) return found;
  throw new BelljarError("DISK_FULL", `${path} would have ${bytes} bytes`);
}

/** The kernel finds memory when it is first written to: not while a guest stands still. */
function prepare({ path, at, bytes }: PrepareRequest): void {
  const room = makeStage(path, bytes + STAGE_SLACK_BYTES);
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
  const bytes = Math.floor(Math.min(wanted, maxBytes, freemem() * HOST_SHARE));
  if (bytes <= keptBytes) return keptBytes;
  const buffer = Buffer.from(new ArrayBuffer(bytes)).fill(1);
  stages.set(path, { buffer, timer: setTimeout(() => letGo(path), STAGE_IDLE_MS).unref() });
  return bytes;
}

function stageOf(path: string): Buffer {
  kept ??= Buffer.alloc(keptBytes).fill(1);
  return stages.get(path)?.buffer ?? kept;
}

/** The memory goes back to the host at once. */
function letGo(path: string): void {
  const found = stages.get(path);
  if (found === undefined) return;
  stages.delete(path);
  clearTimeout(found.timer);
  if (found.buffer.buffer instanceof ArrayBuffer) found.buffer.buffer.transfer(0);
}

function save({ id, pid, blocks, path, order, comes }: SaveRequest, send: (answer: MemoryAnswer) => void): void {
  const buffer = stageOf(path);
  const first = new BigInt64Array(order);
  const isFirst = comes === "first";
  try {
    const scanned = findAllOwn(pid, blocks);
    const bytes = countBytes(scanned);
    if (isFirst) tell(first, BigInt(bytes));
    withFile(path, "r+", (out) => {
      const sink = new Sink(out, buffer, bytes, () => (isFirst ? 0 : beginning(first)));
      withFile(`/proc/${pid}/mem`, "r", (memory) => {
        for (const [index, runs] of scanned.entries()) copyOut(memory, blocks[index]?.address ?? 0, runs, sink);
      });
      send({ id, kind: "copied", runs: scanned });
      const end = sink.end();
      if (!isFirst) ftruncateSync(out, end);
    });
  } catch (error) {
    if (isFirst && first[0] === -1n) tell(first, ORDER_FAILED);
    throw error;
  } finally {
    letGo(path);
  }
  send({ id, kind: "done" });
}

function tell(order: BigInt64Array, value: bigint): void {
  Atomics.store(order, 0, value);
  Atomics.notify(order, 0);
}

/** Where the last half begins. */
function beginning(order: BigInt64Array): number {
  Atomics.wait(order, 0, -1n, ORDER_TIMEOUT_MS);
  const bytes = Atomics.load(order, 0);
  if (bytes < 0n) throw new BelljarError("DISK_FAILED", "the first half of the memory was not copied");
  return Number(bytes);
}

function countBytes(all: readonly PageRuns[]): number {
  return PAGE_BYTES * countPages(all.map((runs) => ({ runs })));
}

function copyOut(memory: number, address: number, runs: PageRuns, sink: Sink): void {
  for (let at = 0; at < runs.length; at += 2) {
    const start = address + (runs[at] ?? 0) * PAGE_BYTES;
    const bytes = (runs[at + 1] ?? 0) * PAGE_BYTES;
    for (let got = 0; got < bytes; ) {
      const { buffer, from, room } = sink.space();
      const read = readSync(memory, buffer, from, Math.min(room, bytes - got), start + got);
      if (read === 0) throw ended("the process's memory");
      sink.filled(read);
      got += read;
    }
  }
}

/** Writes what there is no room for in memory, which is the first of it, and keeps the rest. */
class Sink {
  readonly #file: number;
  readonly #buffer: Buffer;
  /** Where in the file all that begins; asked when it has to be known. */
  readonly #begin: () => number;
  /** What is still to be written at once. */
  #direct: number;
  #used = 0;
  #written = 0;

  constructor(file: number, buffer: Buffer, bytes: number, begin: () => number) {
    this.#file = file;
    this.#buffer = buffer;
    this.#begin = begin;
    this.#direct = Math.max(0, bytes - buffer.length);
  }

  space(): { readonly buffer: Buffer; readonly from: number; readonly room: number } {
    const end = this.#direct > 0 ? Math.min(this.#direct, DIRECT_BYTES) : this.#buffer.length;
    return { buffer: this.#buffer, from: this.#used, room: end - this.#used };
  }

  filled(bytes: number): void {
    this.#used += bytes;
    if (this.#direct === 0 || this.#used < Math.min(this.#direct, DIRECT_BYTES)) return;
    this.#direct -= this.#used;
    this.#flush();
  }

  /** Everything is in the file then; answers where it ends. */
  end(): number {
    this.#flush();
    return this.#begin() + this.#written;
  }

  #flush(): void {
    const begin = this.#begin();
    for (let at = 0; at < this.#used; )
      at += writeSync(this.#file, this.#buffer, at, this.#used - at, begin + this.#written + at);
    this.#written += this.#used;
    this.#used = 0;
  }
}

/** The pages of a file, into a process. */
function load({ pid, blocks, runs, path, at }: Extract<MemoryRequest, { kind: "load" }>): void {
  withFile(`/proc/${pid}/mem`, "r+", (memory) =>
    withFile(path, "r", (pages) =>
      copyIn(
        pages,
        at,
        runs.map((each, index) => ({ runs: each, address: blocks[index]?.address ?? 0 })),
        memory,
      ),
    ),
  );
}

/** The pages of a file, into another file at their places. */
function lay({ runs, path, target }: Extract<MemoryRequest, { kind: "lay" }>): void {
  withFile(target, "r+", (file) => withFile(path, "r", (pages) => copyIn(pages, 0, [{ runs, address: 0 }], file)));
}

function copyIn(
  pages: number,
  from: number,
  parts: readonly { readonly runs: PageRuns; readonly address: number }[],
  target: number,
): void {
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  let next = from;
  let have = 0;
  let used = 0;
  for (const { runs, address } of parts) {
    for (let at = 0; at < runs.length; at += 2) {
      let position = address + (runs[at] ?? 0) * PAGE_BYTES;
      for (let left = (runs[at + 1] ?? 0) * PAGE_BYTES; left > 0; ) {
        if (used === have) {
          have = readSync(pages, chunk, 0, chunk.length, next);
          next += have;
          used = 0;
          if (have === 0) throw ended("the file of pages");
        }
        const written = writeSync(target, chunk, used, Math.min(left, have - used), position);
        if (written === 0) throw ended("the memory that is written to");
        used += written;
        position += written;
        left -= written;
      }
    }
  }
}
