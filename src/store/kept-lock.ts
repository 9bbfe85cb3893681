/**
 * An exclusive lock that its owner keeps for a moment after each use, since the next use often comes soon and a lock costs a child
 * process. Whoever else waits for it gets it when it has been idle for so long; nothing else is different from a lock that is taken
 * each time. Uses do not overlap: the caller sees to that.
 */
export class KeptLock {
  readonly #keepMs: number;
  #lock: AsyncDisposable | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isUsed = false;
  #isClosed = false;

  constructor(keepMs: number) {
    this.#keepMs = keepMs;
  }

  /** @param acquire asked for the lock unless it is kept from before */
  async use(acquire: () => Promise<AsyncDisposable>): Promise<AsyncDisposable> {
    clearTimeout(this.#timer);
    const lock = this.#lock ?? (await acquire());
    this.#lock = lock;
    this.#isUsed = true;
    return {
      [Symbol.asyncDispose]: async () => {
        this.#isUsed = false;
        if (this.#isClosed) return await this.#release();
        this.#timer = setTimeout(() => void this.#release(), this.#keepMs);
        // A process that is about to end loses it anyway.
        this.#timer.unref();
      },
    };
  }

  /** Nothing is kept from now on; a use that is under way ends first. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (!this.#isUsed) await this.#release();
  }

  async #release(): Promise<void> {
    clearTimeout(this.#timer);
    const lock = this.#lock;
    this.#lock = undefined;
    await lock?.[Symbol.asyncDispose]();
  }
}
