/**
 * A process is its pid and its start time: a pid alone may have been given to somebody else since. The start time is field
 * 22 of /proc/PID/stat, in clock ticks since boot, so it also needs the boot id to survive a restart of the host.
 */
import { readFile } from "node:fs/promises";
import type { Field } from "./decode.ts";
import { hasErrno } from "./errors.ts";

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot, as the kernel counts them. */
  readonly startTicks: number;
  /** Id of the boot in which the process lived. */
  readonly bootId: string;
}

let cachedBootId: string | undefined;

async function readBootId(): Promise<string> {
  cachedBootId ??= (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  return cachedBootId;
}

export interface ProcessStat {
  readonly state: string;
  readonly startTicks: number;
  readonly threads: number;
}

async function readStat(pid: number): Promise<ProcessStat | undefined> {
  let text: string;
  try {
    text = await readFile(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ESRCH")) return undefined;
    throw error;
  }
  return parseStat(text);
}

/** Of /proc/PID/stat. The second field is the name in parentheses and may hold anything, parentheses too: count from the last one. */
export function parseStat(text: string): ProcessStat {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "?", startTicks: Number(fields[19]), threads: Number(fields[17]) };
}

/** A zombie has let go of everything, once its last thread has ended; its first one may be the first to end. */
export function isGone({ state, threads }: ProcessStat): boolean {
  return state === "X" || (state === "Z" && threads <= 1);
}

/** The identity of a live process, or undefined when there is none with this pid. A zombie counts as gone. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readStat(pid);
  if (stat === undefined || isGone(stat)) return undefined;
  return { pid, startTicks: stat.startTicks, bootId: await readBootId() };
}

export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(identity.pid);
  return now !== undefined && now.startTicks === identity.startTicks && now.bootId === identity.bootId;
}

/** Sends a signal to exactly this process. A process that is gone is success; the answer says whether it was there. */
export async function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): Promise<boolean> {
  if (!(await isAlive(identity))) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    if (hasErrno(error, "ESRCH")) return false;
    throw error;
  }
}

/** Reads a saved identity back. */
export function decodeProcessIdentity(field: Field): ProcessIdentity {
  return {
    pid: field.field("pid").integer({ min: 1 }),
    startTicks: field.field("startTicks").integer({ min: 0 }),
    bootId: field.field("bootId").string(),
  };
}
