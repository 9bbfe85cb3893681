/**
 * A process that a handle has started, and how long it may go on: until the signal of whoever started it fires, and until the handle
 * is disposed of. A handle of somebody else's process does neither.
 */
import { constants } from "node:os";
import { cancelledError } from "./deadline.ts";
import type { ErrorReason } from "./error-reasons.ts";
import { BelljarError } from "./errors.ts";
import { sandboxLimits } from "./limits.ts";

export interface EndedProcess {
  signal(number: number): Promise<void>;
  waitForEnd(waitMs: number): Promise<unknown>;
  release(): Promise<void>;
}

export class StartedProcess {
  readonly #process: EndedProcess;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => {
    // Whoever wants to know how it ended has its status.
    this.#process.signal(constants.signals.SIGKILL).catch(() => {});
  };

  /** @param signal undefined for one that goes on whatever its starter does */
  constructor(process: EndedProcess, signal: AbortSignal | undefined) {
    this.#process = process;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** It was started, and its starter has given up since. @throws BelljarError `CANCELLED` */
  async checkWanted(): Promise<void> {
    if (this.#signal?.aborted !== true) return;
    await this.end();
    throw cancelledError(this.#signal);
  }

  /** The signal means nothing any more. */
  untie(): void {
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }

  /** Ended and forgotten; one that is not there any more is success. */
  async end(): Promise<void> {
    this.untie();
    try {
      await this.#process.signal(constants.signals.SIGKILL);
    } catch (error) {
      if (GONE.includes(BelljarError.from(error).reason)) return;
      throw error;
    }
    // What cannot be forgotten now goes with the container.
    await this.#process
      .waitForEnd(sandboxLimits.killTimeoutMs)
      .then(() => this.#process.release())
      .catch(() => {});
  }
}

const GONE: readonly ErrorReason[] = [
  "PROCESS_NOT_FOUND",
  "CONTAINER_NOT_FOUND",
  "SANDBOX_NOT_FOUND",
  // Its container, or all of the sandbox, has been stopped.
  "INVALID_TRANSITION",
  "VMM_DIED",
];
