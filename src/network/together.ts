/**
 * Work that costs less for several at once than for one after the other: what is asked for while some of it is under way is done together when
 * that has ended. Where that fails each is done once more by itself, so that nobody is told of another's failure.
 */
import type { Turns } from "../store/index.ts";

interface Waiting<T> {
  readonly item: T;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Together<T> {
  readonly #turns: Turns;
  readonly #work: (items: readonly T[], again: boolean) => Promise<void>;
  #waiting: Waiting<T>[] = [];

  /** @param work told whether it was begun before for any of these */
  constructor(turns: Turns, work: (items: readonly T[], again: boolean) => Promise<void>) {
    this.#turns = turns;
    this.#work = work;
  }

  async add(item: T): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ item, resolve, reject });
    if (this.#waiting.length === 1) {
      this.#turns
        .take(() => this.#run(this.#waiting.splice(0)))
        .catch((error: unknown) => {
          for (const each of this.#waiting.splice(0)) each.reject(error);
        });
    }
    await promise;
  }

  /** Never rejects. */
  async #run(all: readonly Waiting<T>[], again = false): Promise<void> {
    try {
      await this.#work(
        all.map(({ item }) => item),
        again,
      );
      for (const { resolve } of all) resolve();
    } catch (error) {
      if (all.length === 1) all[0]?.reject(error);
      else for (const each of all) await this.#run([each], true);
    }
  }
}
