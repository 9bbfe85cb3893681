/** The end of a VMM that nobody holds. */
import { isAlive, type ProcessIdentity, signalProcess, vmmLimits, withDeadline } from "../base/index.ts";

/** Kills the process, and waits until the kernel has removed it; false when it was gone already. */
export async function endProcess(identity: ProcessIdentity): Promise<boolean> {
  if (!(await signalProcess(identity, "SIGKILL"))) return false;
  await withDeadline({ timeoutMs: vmmLimits.killTimeoutMs, what: `process ${identity.pid}` }, async (signal) => {
    while (!signal.aborted && (await isAlive(identity))) await new Promise((resolve) => setTimeout(resolve, 5));
  });
  return true;
}
