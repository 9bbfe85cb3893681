/**
 * The end of something that lives long, for work that has no sense after it. Nothing is kept of work that is over: `Promise.race` with a promise
 * that stays pending keeps the result of every race until it settles.
 */
export class Ending {
  readonly #waiting = new Set<(error: unknown) => void>();
  #end: { readonly error: unknown } | undefined;

  /** The first end counts. */
  end(error: unknown): void {
    if (this.#end !== undefined) return;
    this.#end = { error };
    for (const fail of this.#waiting) fail(error);
    this.#waiting.clear();
  }

  /** @throws what it ended with, when that comes before the work's own end */
  async during<T>(work: Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#waiting.add(reject);
    // After an end the work's own failure is nobody's any more.
    work.then(resolve, reject);
    if (this.#end !== undefined) reject(this.#end.error);
    try {
      return await promise;
    } finally {
      this.#waiting.delete(reject);
    }
  }
}
