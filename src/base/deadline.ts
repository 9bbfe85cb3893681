/** Every wait has an end: a promise raced against a time limit and the caller's signal. */

import type { ErrorReason } from "./error-reasons.ts";
import { BelljarError } from "./errors.ts";

export interface DeadlineOptions {
  readonly timeoutMs: number;
  /** What was waited for, as it completes "... did not end within 3000 ms". */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
  /** Reason of the error when time runs out; `DEADLINE_EXCEEDED` unless told. */
  readonly reason?: ErrorReason;
}

/**
 * Waits for `work`, at most `timeoutMs`. The work is handed a signal that fires when the wait ends early, so that it can stop.
 * @throws BelljarError the given reason when time runs out, `CANCELLED` when the caller's signal fires.
 */
export async function withDeadline<T>(options: DeadlineOptions, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  throwIfAborted(options.signal);
  const controller = new AbortController();
  let onAbort: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;
  const end = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        new BelljarError(
          options.reason ?? "DEADLINE_EXCEEDED",
          `${options.what} did not end within ${options.timeoutMs} ms`,
          {
            facts: { timeoutMs: options.timeoutMs },
          },
        ),
      );
    }, options.timeoutMs);
    onAbort = () => reject(cancelledError(options.signal));
    options.signal?.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work(controller.signal), end]);
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) options.signal?.removeEventListener("abort", onAbort);
    controller.abort();
  }
}

export function cancelledError(signal: AbortSignal | undefined): BelljarError {
  const cause: unknown = signal?.reason;
  return cause instanceof BelljarError ? cause : new BelljarError("CANCELLED", "cancelled", { cause });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelledError(signal);
}
