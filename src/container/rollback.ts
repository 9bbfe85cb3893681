/** Undoes the steps of an operation that failed: last first, each on its own, whatever the others do. */
import { BelljarError, type Log, messageChain } from "../base/index.ts";

export class Rollback {
  readonly #steps: { what: string; undo: () => Promise<void> }[] = [];
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  add(what: string, undo: () => Promise<void>): void {
    this.#steps.push({ what, undo });
  }

  /**
   * Undoes everything. Answers the error to tell: the one that made it necessary, and with it, as the fact `notUndone`, the
   * steps that could not be undone. Never throws.
   */
  async fail(thrown: unknown): Promise<BelljarError> {
    const error = BelljarError.from(thrown);
    const notUndone: string[] = [];
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        await step.undo();
      } catch (failure) {
        const cause = messageChain(BelljarError.from(failure)).join(": ");
        notUndone.push(`${step.what}: ${cause}`);
        this.#log.warn("a step could not be undone", { step: step.what, cause });
      }
    }
    if (notUndone.length === 0) return error;
    return new BelljarError(error.reason, error.message, { facts: { ...error.facts, notUndone }, cause: error });
  }
}
