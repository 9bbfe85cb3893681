/** Signals to processes of containers. A process that is gone is success. */
import { hasErrno } from "../src/base/errors.ts";
import { needsDefaultAction } from "./default-action.ts";
import type { GuestProcess } from "./process.ts";

export const SIGKILL = 9;

export function sendSignal(pid: number, signal: number): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!hasErrno(error, "ESRCH")) throw error;
  }
}

/** Sends a signal to one that the agent has started; the first of a PID namespace too ends by it. */
export async function signalProcess(target: GuestProcess, signal: number): Promise<void> {
  if (target.end !== undefined) return;
  if (await needsDefaultAction(target.pid, signal)) target.endBy(signal);
  else sendSignal(target.pid, signal);
}
