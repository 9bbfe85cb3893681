/**
 * Whether somebody wants something of a sandbox's guest: calls that are under way (exec, files, changes), readers that are attached, and
 * when the last of them was there. Looking at it from outside (`ps`, `stats`, `logs`) is no activity.
 */
import type { Clock } from "../base/index.ts";

export class Activity {
  readonly #clock: Clock;
  #calls = 0;
  #readers = 0;
  #lastMs: number;
  #callsEnded = Promise.withResolvers<void>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#lastMs = clock.monotonicMs();
  }

  call(): Disposable {
    this.#calls += 1;
    return this.#until(() => {
      this.#calls -= 1;
      if (this.#calls > 0) return;
      this.#callsEnded.resolve();
      this.#callsEnded = Promise.withResolvers();
    });
  }

  /** Somebody waits for what a process says or how it ends. */
  reader(): Disposable {
    this.#readers += 1;
    return this.#until(() => {
      this.#readers -= 1;
    });
  }

  touch(): void {
    this.#lastMs = this.#clock.monotonicMs();
  }

  /** For how long there has been none. */
  get idleMs(): number {
    return this.#calls + this.#readers > 0 ? 0 : this.#clock.monotonicMs() - this.#lastMs;
  }

  /** Waits until no call is under way, at most so long. */
  async callsEnd(timeoutMs: number): Promise<void> {
    if (this.#calls === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#callsEnded.promise, late]);
    clearTimeout(timer);
  }

  #until(end: () => void): Disposable {
    this.touch();
    let isOver = false;
    return {
      [Symbol.dispose]: () => {
        if (isOver) return;
        isOver = true;
        end();
        this.touch();
      },
    };
  }
}
