/**
 * When the agents of copies are asked for the first time. The guest's wake program has their containers run before that, and being asked
 * costs an emulated guest a third of a second of CPU: of copies that are made together each is asked in its turn, and none before all of
 * them are made and have had the CPUs for a while. Whoever wants something of a copy's agent does not wait for that.
 */
import { availableParallelism } from "node:os";
import { type Clock, checkpointLimits, Places, sandboxLimits } from "../base/index.ts";
import { abortable } from "../sandbox/index.ts";

export class Introductions {
  readonly #clock: Clock;
  readonly #places = new Places(availableParallelism());
  #batches = 0;
  #quietFromMs = 0;
  /** Settles when no copies are being made. */
  #made = Promise.withResolvers<void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Until it is disposed of, copies are being made. */
  batch(): Disposable {
    this.#batches += 1;
    return {
      [Symbol.dispose]: () => {
        this.#batches -= 1;
        this.#quietFromMs = performance.now() + checkpointLimits.introductionQuietMs;
        if (this.#batches > 0) return;
        this.#made.resolve();
        this.#made = Promise.withResolvers();
      },
    };
  }

  /** In its turn. Whoever takes too long does not hold up the others. */
  async introduce(work: () => Promise<void>, signal: AbortSignal): Promise<void> {
    for (;;) {
      const restMs = this.#quietFromMs - performance.now();
      if (this.#batches > 0) await abortable(this.#made.promise, signal);
      else if (restMs > 0) await this.#clock.sleep(restMs, signal);
      else break;
    }
    using _place = await this.#places.take(sandboxLimits.recoveryAgentTimeoutMs, signal);
    await work();
  }
}
