/** What a VM costs the host: its process in /proc. */
import { readFile } from "node:fs/promises";
import { BelljarError, hasErrno } from "../base/index.ts";

export interface HostStats {
  readonly cpuUs: bigint;
  readonly residentBytes: bigint;
  readonly threads: number;
}

/** Of the clock of /proc/PID/stat; the kernel has shown 100 per second to user space on every x86 for decades. */
const TICK_US = 10_000n;
const PAGE_BYTES = 4_096n;

/** @throws BelljarError `VMM_DIED` when there is no such process */
export async function readHostStats(pid: number): Promise<HostStats> {
  let text: string;
  try {
    text = await readFile(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    if (!hasErrno(error, "ENOENT") && !hasErrno(error, "ESRCH")) throw error;
    throw new BelljarError("VMM_DIED", `the VM's process ${pid} is gone`);
  }
  // The name, in parentheses, may hold anything: fields are counted from behind it. The first of them is number 3.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const field = (number: number): bigint => BigInt(fields[number - 3] ?? "0");
  return {
    cpuUs: (field(14) + field(15)) * TICK_US,
    threads: Number(field(20)),
    residentBytes: field(24) * PAGE_BYTES,
  };
}
