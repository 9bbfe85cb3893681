/** Whether the host has the memory for a VM: asked before the start, since Linux promises memory that it does not have. */
import { readFile } from "node:fs/promises";
import { BelljarError, vmmLimits } from "../../base/index.ts";

/** What the kernel thinks can be given to new processes without swapping. */
export async function readAvailableMib(): Promise<number> {
  const text = await readFile("/proc/meminfo", "utf8");
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
  if (kib === undefined) throw new BelljarError("UNSUPPORTED_HOST", "/proc/meminfo has no MemAvailable");
  return Math.floor(Number(kib) / 1024);
}

/** @throws BelljarError `NOT_ENOUGH_MEMORY` */
export function checkMemory(guestMib: number, availableMib: number): void {
  const wantedMib = guestMib + vmmLimits.overheadMib;
  if (wantedMib <= availableMib) return;
  throw new BelljarError(
    "NOT_ENOUGH_MEMORY",
    `a VM of ${guestMib} MiB needs ${wantedMib} MiB, and the host has ${availableMib} MiB free`,
    { facts: { wantedMib, availableMib } },
  );
}
