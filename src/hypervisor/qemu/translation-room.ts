/**
 * Memory for translated code, of a QEMU that has not run anything yet. QEMU asks for huge pages for it, and the kernel clears each when it
 * is first written to: 2 MiB at a time, some milliseconds of what a copy has to wait for. Whoever waits for a copy has the time before.
 */
import { open, readFile } from "node:fs/promises";
import { TCG_BUFFER_MIB } from "./arguments.ts";

const MIB = 1024 * 1024;
const HUGE_PAGE_BYTES = 2 * MIB;
/** Until a copy's containers run it has translated 4 MiB, until its agent has answered 24. */
const ROOM_BYTES = 8 * MIB;

/** Nothing is there that is written over: no CPU of it has run. @throws Error when the process is gone */
export async function makeTranslationRoom(pid: number): Promise<void> {
  const start = findBuffer(await readFile(`/proc/${pid}/maps`, "latin1"));
  if (start === undefined) return;
  await using memory = await open(`/proc/${pid}/mem`, "r+");
  // What it has made for itself is at the beginning, whose page is there.
  const first = Math.ceil((start + 1) / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
  for (let at = first; at < first + ROOM_BYTES; at += HUGE_PAGE_BYTES) await memory.write(Buffer.alloc(1), 0, 1, at);
}

/** Memory of that size that is executed and written to. Exported for its test. */
export function findBuffer(maps: string): number | undefined {
  for (const [, from = "", to = ""] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rwxp 0+ 00:00 0 *$/gm)) {
    const [start, end] = [Number.parseInt(from, 16), Number.parseInt(to, 16)];
    // A page of it is none's: whoever writes past its end is stopped.
    if (end - start > (TCG_BUFFER_MIB - 1) * MIB && end - start <= TCG_BUFFER_MIB * MIB) return start;
  }
  return undefined;
}
