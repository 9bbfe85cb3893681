/** One thing after the other: actions run in the order of their calls, each when the one before has ended, well or not. */
import { BelljarError, storeLimits } from "../base/index.ts";

export class Turns {
  readonly #what: string;
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** @param what what the actions work on, for the error when too many wait */
  constructor(what: string) {
    this.#what = what;
  }

  async take<R>(act: () => Promise<R>): Promise<R> {
    if (this.#waiting >= storeLimits.writesWaitingMax) {
      throw new BelljarError("INTERNAL", `${this.#waiting} operations on ${this.#what} are waiting already`);
    }
    this.#waiting += 1;
    const turn = this.#last.then(act).finally(() => {
      this.#waiting -= 1;
    });
    // The next in line does not care how this one ended; its own caller does.
    this.#last = turn.catch(() => {});
    return turn;
  }
}
