/**
 * Which pages of a guest are its VMM's own, looked for by the threads that move memory, synchronously as they do everything.
 *
 * A page differs from the template's (or, without a template, from zeros) when the VMM has a copy of its own: in
 * /proc/PID/pagemap it is present and not of a file (bits 63 and 61), or swapped out (bit 62). Reading never makes a copy.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { BelljarError } from "../../base/index.ts";
import type { Place } from "./halves.ts";
import { PAGE_BYTES, type PageRuns } from "./page-runs.ts";

/** Entries of pagemap that are looked at in one go: 128 MiB of a guest. */
const ENTRIES = 32 * 1024;

const entries = new Uint32Array(ENTRIES * 2);

export function findAllOwn(pid: number, blocks: readonly Place[]): readonly PageRuns[] {
  return withFile(`/proc/${pid}/pagemap`, "r", (pagemap) => blocks.map((block) => findOwn(pagemap, block)));
}

/** Runs of pages of which the process has a copy of its own. */
function findOwn(pagemap: number, { address, sizeBytes }: Place): PageRuns {
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

export function ended(what: string): BelljarError {
  return new BelljarError("DISK_FAILED", `the guest's memory could not be moved: ${what} ended too soon`);
}

export function withFile<T>(path: string, flags: string, work: (file: number) => T): T {
  const file = openSync(path, flags, 0o600);
  try {
    return work(file);
  } finally {
    closeSync(file);
  }
}
