/**
 * A thread that moves guests' memory: the only place of the program where files are read and written synchronously. What it does is
 * many thousands of small reads at addresses of another process, each of a microsecond, while a guest stands still.
 */
import { readSync, writeSync } from "node:fs";
import { type MessagePort, parentPort } from "node:worker_threads";
import { BelljarError } from "../../base/index.ts";
import { look, prepare, save, write } from "./copy-out.ts";
import type { MemoryAnswer, MemoryRequest } from "./messages.ts";
import { ended, withFile } from "./own-pages.ts";
import { PAGE_BYTES, type PageRuns } from "./page-runs.ts";

const CHUNK_BYTES = 4 * 1024 * 1024;

if (parentPort !== null) serve(parentPort);

function serve(port: MessagePort): void {
  port.on("message", (request: MemoryRequest) => {
    const { id } = request;
    const send = (answer: MemoryAnswer): void => port.postMessage(answer);
    try {
      send({ id, kind: "done", runs: carryOut(request) });
    } catch (error) {
      const isFull = error instanceof BelljarError && error.reason === "DISK_FULL";
      const code = isFull ? "ENOSPC" : error instanceof Error && "code" in error ? String(error.code) : "";
      send({ id, kind: "failed", code, message: error instanceof Error ? error.message : String(error) });
    }
  });
}

/** Answers the pages that were found by a look. */
function carryOut(request: MemoryRequest): readonly PageRuns[] {
  switch (request.kind) {
    case "look":
      return look(request);
    case "prepare":
      prepare(request);
      break;
    case "save":
      return save(request);
    case "write":
      write(request);
      break;
    case "load":
      load(request);
      break;
    case "lay":
      lay(request);
  }
  return [];
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
