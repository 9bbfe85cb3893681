/**
 * Signals to the CLI. Until the workload runs, the first one cancels what is being done and cleans up. Once it runs, signals
 * are passed on to it, as docker does; a second SIGINT means that the user has lost patience, and ends it with SIGKILL.
 */
import { constants } from "node:os";
import { BelljarError } from "../base/index.ts";
import { exitStatusOf } from "./exit-status.ts";

const FORWARDED: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"];

export class SignalRelay implements Disposable {
  readonly #controller = new AbortController();
  readonly #handlers = new Map<NodeJS.Signals, () => void>();
  #forward: ((signal: NodeJS.Signals) => void) | undefined;
  #interrupts = 0;

  constructor() {
    for (const signal of FORWARDED) {
      const handler = (): void => this.#receive(signal);
      this.#handlers.set(signal, handler);
      process.on(signal, handler);
    }
  }

  /** Fires on the first signal that comes before `forwardTo`. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From now on signals go to the workload. */
  forwardTo(send: (signal: NodeJS.Signals) => void): void {
    this.#forward = send;
  }

  [Symbol.dispose](): void {
    for (const [signal, handler] of this.#handlers) process.off(signal, handler);
  }

  #receive(signal: NodeJS.Signals): void {
    if (this.#forward !== undefined) {
      this.#interrupts += signal === "SIGINT" ? 1 : 0;
      this.#forward(this.#interrupts > 1 ? "SIGKILL" : signal);
      return;
    }
    this.#controller.abort(
      new BelljarError("CANCELLED", `interrupted by ${signal}`, {
        facts: { signal, signalNumber: constants.signals[signal] },
      }),
    );
  }
}

/** For what goes on until the user has seen enough: being interrupted is its proper end, and says nothing but its status. */
export async function* untilInterrupted<T>(
  items: AsyncIterable<T>,
  signal: AbortSignal,
  setStatus: (status: number) => void,
): AsyncGenerator<T> {
  try {
    yield* items;
  } catch (error) {
    if (!signal.aborted) throw error;
    setStatus(exitStatusOf(BelljarError.from(signal.reason)));
  }
}
