/**
 * Signals to the first process of a PID namespace. The kernel drops those whose action is the default one, even from outside,
 * unless it is SIGKILL or SIGSTOP: `sleep` as a container's command cannot be ended with SIGTERM. Users expect that it can, so
 * the agent does what the kernel would do for any other process.
 */
import { readFile } from "node:fs/promises";

const SIGKILL = 9;
/** SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH: their default action ends nothing. */
const HARMLESS: ReadonlySet<number> = new Set([17, 18, 19, 20, 21, 22, 23, 28]);

/** True when this signal should end this process and the kernel would not let it. */
export async function needsDefaultAction(pid: number, signal: number): Promise<boolean> {
  if (signal === SIGKILL || HARMLESS.has(signal)) return false;
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return isIgnoredByInit(status, signal);
}

/** Decides from the text of /proc/PID/status: first of its namespace, and neither a handler nor "ignore" for the signal. */
export function isIgnoredByInit(status: string, signal: number): boolean {
  const namespacePids = /^NSpid:\s+(.*)$/m.exec(status)?.[1]?.split(/\s+/) ?? [];
  if (namespacePids.length < 2 || namespacePids.at(-1) !== "1") return false;
  return !inMask(status, "SigCgt", signal) && !inMask(status, "SigIgn", signal);
}

function inMask(status: string, name: string, signal: number): boolean {
  const mask = new RegExp(`^${name}:\\s+([0-9a-f]{16})$`, "m").exec(status)?.[1];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}
