/** What hooks of containers have to do with saving and restoring: they are the guest's, so their words are bounded and cleaned. */
import { BelljarError, type Log, standstillLimits } from "../base/index.ts";
import { cleanMessage, type HookFailure } from "../protocol/index.ts";

/** Of the source: a failure is told, and changes nothing. */
export function tellHookFailures(log: Log, failures: readonly HookFailure[]): void {
  for (const { containerId, hook, message } of failures.slice(0, standstillLimits.hookFailuresMax)) {
    const what = { container: cleanMessage(containerId), hook: cleanMessage(hook), cause: cleanMessage(message) };
    log.warn("a hook of a container failed", what);
  }
}

/** Of a copy: one that could not renew what it must renew does not live. @throws BelljarError `HOOK_FAILED` */
export function refuseHookFailures([first, ...others]: readonly HookFailure[]): void {
  if (first === undefined) return;
  const { containerId, hook, message } = first;
  const more = others.length === 0 ? "" : `, and ${others.length} more failed`;
  const words = `the hook ${cleanMessage(hook)} of the container ${cleanMessage(containerId)}: ${cleanMessage(message)}`;
  throw new BelljarError("HOOK_FAILED", `${words}${more}`);
}
