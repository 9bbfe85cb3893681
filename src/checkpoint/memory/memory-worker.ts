/**
 * A thread that moves guests' memory: the only place of the program where files are read and written synchronously. What it does is
 * many thousands of small reads at addresses of another process, each of a microsecond, while a guest stands still.
 *
 * A page differs from the template's (or, without a template, from zeros) when the VMM has a copy of its own: in
 * /proc/PID/pagemap it is present and not of a file (bits 63 and 61), or swapped out (bit 62). Reading never makes a copy.
 */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { type MessagePort, parentPort } from "node:worker_threads";
import { BelljarError } from "../../base/index.ts";
import type { MemoryAnswer, MemoryRequest, PrepareRequest, SaveRequest } from "./messages.ts";
import { countPages, PAGE_BYTES, type PageRuns } from "./page-runs.ts";

/**
 * What is copied while the guest stands still and written afterwards. What is more than this is written while it stands still: to pages
 * that the kernel has found for the file before, since finding them takes it longer than all the rest.
 */
const STAGE_BYTES = 32 * 1024 * 1024;
/** Goes through the caches of a CPU. */
const DIRECT_BYTES = 1024 * 1024;
const CHUNK_BYTES = 4 * 1024 * 1024;
/** Entries of pagemap that are looked at in one go: 128 MiB of a guest. */
const ENTRIES = 32 * 1024;

const entries = new Uint32Array(ENTRIES * 2);
let stage: Buffer | undefined;

if (parentPort !== null) serve(parentPort);

function serve(port: MessagePort): void {
  port.on("message", (request: MemoryRequest) => {
    const { id } = request;
    const send = (answer: MemoryAnswer): void => port.postMessage(answer);
    try {
      switch (request.kind) {
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
      const code = error instanceof Error && "code" in error ? String(error.code) : "";
      send({ id, kind: "failed", code, message: error instanceof Error ? error.message : String(error) });
    }
  });
}

/** The kernel finds memory when it is first written to: not while a guest stands still. */
function prepare({ pid, blocks, path }: PrepareRequest): void {
  staging();
  const bytes = countBytes(findAllOwn(pid, blocks));
  withFile(path, "wx", (out) => {
    if (bytes <= STAGE_BYTES) return;
    const zeros = Buffer.alloc(DIRECT_BYTES);
    for (let at = 0; at < bytes; ) at += writeSync(out, zeros, 0, Math.min(zeros.length, bytes - at), at);
  });
}

function staging(): Buffer {
  stage ??= Buffer.alloc(STAGE_BYTES).fill(1);
  return stage;
}

function save({ id, pid, blocks, path }: SaveRequest, send: (answer: MemoryAnswer) => void): void {
  const buffer = staging();
  const scanned = findAllOwn(pid, blocks);
  withFile(path, "r+", (out) => {
    const sink = new Sink(out, buffer, countBytes(scanned));
    withFile(`/proc/${pid}/mem`, "r", (memory) => {
      for (const [index, runs] of scanned.entries()) copyOut(memory, blocks[index]?.address ?? 0, runs, sink);
    });
    send({ id, kind: "copied", runs: scanned });
    sink.end();
  });
  send({ id, kind: "done" });
}

function findAllOwn(pid: number, blocks: SaveRequest["blocks"]): readonly PageRuns[] {
  return withFile(`/proc/${pid}/pagemap`, "r", (pagemap) => blocks.map((block) => findOwn(pagemap, block)));
}

function countBytes(all: readonly PageRuns[]): number {
  return PAGE_BYTES * countPages(all.map((runs) => ({ runs })));
}

/** Runs of pages of which the process has a copy of its own. */
function findOwn(pagemap: number, { address, sizeBytes }: SaveRequest["blocks"][number]): PageRuns {
  const pages = sizeBytes / PAGE_BYTES;
  const runs: number[] = [];
  let first = -1;
  for (let from = 0; from < pages; from += ENTRIES) {
    const count = Math.min(ENTRIES, pages - from);
    fill(pagemap, count * 8, (address / PAGE_BYTES + from) * 8);
    for (let index = 0; index < count; index += 1) {
      const high = entries[2 * index + 1] ?? 0;
      const isOwn = (high & 0xa0000000) === (0x80000000 | 0) || (high & 0x40000000) !== 0;
      if (isOwn === first >= 0) continue;
      if (isOwn) first = from + index;
      else {
        runs.push(first, from + index - first);
        first = -1;
      }
    }
  }
  if (first >= 0) runs.push(first, pages - first);
  return Uint32Array.from(runs);
}

function fill(pagemap: number, bytes: number, position: number): void {
  for (let got = 0; got < bytes; ) {
    const read = readSync(pagemap, entries, got, bytes - got, position + got);
    if (read === 0) throw ended("the process's memory");
    got += read;
  }
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
  /** What is still to be written at once. */
  #direct: number;
  #used = 0;
  #written = 0;

  constructor(file: number, buffer: Buffer, bytes: number) {
    this.#file = file;
    this.#buffer = buffer;
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

  /** Everything is in the file then, and nothing else is. */
  end(): void {
    this.#flush();
    ftruncateSync(this.#file, this.#written);
  }

  #flush(): void {
    for (let at = 0; at < this.#used; )
      at += writeSync(this.#file, this.#buffer, at, this.#used - at, this.#written + at);
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

function ended(what: string): BelljarError {
  return new BelljarError("DISK_FAILED", `${what} ended too soon`);
}

function withFile<T>(path: string, flags: string, work: (file: number) => T): T {
  const file = openSync(path, flags, 0o600);
  try {
    return work(file);
  } finally {
    closeSync(file);
  }
}
