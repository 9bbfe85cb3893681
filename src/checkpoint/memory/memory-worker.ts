/**
 * A thread that moves guests' memory: the only place of the program where files are read and written synchronously. What it does is
 * copying some megabytes from addresses of another process, in a few milliseconds, while a guest stands still.
 */
import { readSync, writeSync } from "node:fs";
import { type MessagePort, parentPort } from "node:worker_threads";
import { BelljarError } from "../../base/index.ts";
import { look, prepare, save, write } from "./copy-out.ts";
import type { MemoryAnswer, MemoryRequest } from "./messages.ts";
import { ended, withFile } from "./own-pages.ts";
import { countPages, PAGE_BYTES, type PageRuns } from "./page-runs.ts";
import { ProcessPages } from "./process-memory.ts";

const CHUNK_BYTES = 4 * 1024 * 1024;

if (parentPort !== null) serve(parentPort);

function serve(port: MessagePort): void {
  port.on("message", (request: MemoryRequest) => {
    const { id } = request;
    const send = (answer: MemoryAnswer): void => port.postMessage(answer);
    try {
      send({ id, kind: "done", runs: carryOut(request) });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (error instanceof BelljarError) send({ id, kind: "refused", reason: error.reason, message });
      else
        send({
          id,
          kind: "failed",
          code: error instanceof Error && "code" in error ? String(error.code) : "",
          message,
        });
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
  const parts = runs.map((each, index) => ({ runs: each, address: blocks[index]?.address ?? 0 }));
  const target = new ProcessPages(pid, parts);
  const bytes = countPages(parts) * PAGE_BYTES;
  withFile(path, "r", (file) => copyIn(file, at, bytes, (chunk, from, length) => target.write(chunk, from, length)));
}

/** The pages of a file, into another file at their places. */
function lay({ runs, path, target }: Extract<MemoryRequest, { kind: "lay" }>): void {
  const bytes = countPages([{ runs }]) * PAGE_BYTES;
  withFile(target, "r+", (memory) => withFile(path, "r", (file) => copyIn(file, 0, bytes, writerAt(memory, runs))));
}

/** Answers how many of the bytes it has taken, as what comes next; 0 when nothing does. */
type Writer = (chunk: Buffer, from: number, bytes: number) => number;

function writerAt(memory: number, runs: PageRuns): Writer {
  let run = 0;
  let written = 0;
  return (chunk, from, bytes) => {
    const length = (runs[run + 1] ?? 0) * PAGE_BYTES;
    const position = (runs[run] ?? 0) * PAGE_BYTES + written;
    const taken = writeSync(memory, chunk, from, Math.min(bytes, length - written), position);
    written += taken;
    if (written === length) [run, written] = [run + 2, 0];
    return taken;
  };
}

function copyIn(pages: number, at: number, bytes: number, write: Writer): void {
  const chunk = Buffer.from(new ArrayBuffer(Math.min(CHUNK_BYTES, bytes)));
  for (let done = 0; done < bytes; ) {
    const have = readSync(pages, chunk, 0, Math.min(chunk.length, bytes - done), at + done);
    if (have === 0) throw ended("the file of pages");
    for (let used = 0; used < have; ) {
      const written = write(chunk, used, have - used);
      if (written === 0) throw ended("the memory that is written to");
      used += written;
    }
    done += have;
  }
}
