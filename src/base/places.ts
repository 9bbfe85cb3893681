/** So many at once: the others wait in the order in which they came. */
import { cancelledError } from "./deadline.ts";

export class Places {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(count: number) {
    this.#free = count;
  }

  /**
   * A place, until it is disposed of, or for `keepMs`: who takes longer goes on without one, and does not hold up the others.
   * @throws BelljarError `CANCELLED`
   */
  async take(keepMs: number, signal: AbortSignal): Promise<Disposable> {
    if (signal.aborted) throw cancelledError(signal);
    if (this.#free > 0) this.#free -= 1;
    else await this.#turn(signal);
    let isHeld = true;
    const leave = (): void => {
      if (!isHeld) return;
      isHeld = false;
      clearTimeout(timer);
      this.#leave();
    };
    const timer = setTimeout(leave, keepMs);
    return { [Symbol.dispose]: leave };
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onAbort = (): void => {
      const at = this.#waiting.indexOf(resolve);
      // It has just been handed one.
      if (at < 0) return;
      this.#waiting.splice(at, 1);
      reject(cancelledError(signal));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting.push(resolve);
    await promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free += 1;
    else next();
  }
}
