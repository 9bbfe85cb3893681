/** Time as a parameter, so that tests can hold it still. */
import { setTimeout as sleep } from "node:timers/promises";

export interface Clock {
  /** Milliseconds since the epoch, for what people read. */
  nowMs(): number;
  /** Milliseconds on a clock that never jumps, for durations. */
  monotonicMs(): number;
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: async (durationMs, signal) => {
    await sleep(durationMs, undefined, signal === undefined ? {} : { signal });
  },
};
