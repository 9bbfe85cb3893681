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

  /** Never throws: the error that made it necessary is the one to tell, and what could not be undone is logged. */
  async run(): Promise<void> {
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        await step.undo();
      } catch (error) {
        const cause = messageChain(BelljarError.from(error)).join(": ");
        this.#log.warn("a step could not be undone", { step: step.what, cause });
      }
    }
  }
}
