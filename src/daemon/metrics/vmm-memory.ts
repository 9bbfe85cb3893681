/** Memory of VMs, as the host's kernel counts it: what each has alone, and what it shares with others or with the page cache. */
import { readFile } from "node:fs/promises";

export interface VmmMemory {
  readonly privateBytes: number;
  readonly sharedBytes: number;
}

/** The kernel walks the page tables of each: one after the other, so that a scrape takes one thread and not all. */
export async function readVmmMemory(pids: readonly number[]): Promise<VmmMemory> {
  let privateBytes = 0;
  let sharedBytes = 0;
  for (const pid of pids) {
    // One that has just ended has none.
    const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8").catch(() => "");
    const sum = (kind: string): number =>
      [...text.matchAll(new RegExp(`^${kind}_(?:Clean|Dirty):\\s+(\\d+) kB$`, "gm"))].reduce(
        (total, match) => total + Number(match[1]) * 1024,
        0,
      );
    privateBytes += sum("Private");
    sharedBytes += sum("Shared");
  }
  return { privateBytes, sharedBytes };
}
