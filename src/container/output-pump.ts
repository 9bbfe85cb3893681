/**
 * Moves what a container's first process writes out of the guest's rings into its log, for as long as this process owns the
 * sandbox: one series of readings per stream. The guest sees it as the reader that is attached.
 *
 * Invariants: a byte of the ring is acknowledged only when its record is written, so that the next owner can go on at the
 * log's end. The pump waits for an attached cursor that is too far behind, for a link that was lost and for a disk that is full;
 * the guest's ring fills meanwhile, and then the process waits. It waits for nobody else.
 */
import { type AgentCaller, OutputReader, type ProcessAddress } from "../agent-client/index.ts";
import {
  BelljarError,
  type Clock,
  cancelledError,
  type ErrorReason,
  logLimits,
  throwIfAborted,
} from "../base/index.ts";
import type { OutputLog } from "./output-log.ts";
import type { StreamNumber } from "./output-log-format.ts";

export interface OutputPumpDeps {
  readonly agent: AgentCaller;
  readonly address: ProcessAddress;
  readonly log: OutputLog;
  /** Those that the process has; a terminal has only 1. */
  readonly streams: readonly StreamNumber[];
  readonly clock: Clock;
  /** Told of each failure, but not again of the same one that lasts. */
  readonly onError: (error: BelljarError) => void;
}

/** The guest knows nothing of the process any more, or has another one: nothing will come. */
const finalReasons: ReadonlySet<ErrorReason> = new Set<ErrorReason>([
  "AGENT_FAILED",
  "AGENT_VERSION",
  "CONTAINER_NOT_FOUND",
  "INVALID_ARGUMENT",
  "PROCESS_NOT_FOUND",
]);

export class OutputPump {
  readonly #deps: OutputPumpDeps;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  readonly #ended = Promise.withResolvers<void>();

  constructor(deps: OutputPumpDeps) {
    this.#deps = deps;
  }

  /** Settles, never rejects, when nothing more will be logged: all streams have ended, or it was stopped, or it has failed for good. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Goes on where the log ends. Idempotent. */
  start(): void {
    this.#running ??= Promise.all(([1, 2] as const).map((stream) => this.#pump(stream))).then(() =>
      this.#ended.resolve(),
    );
  }

  /**
   * Resolves when nothing is written any more. What the guest still has is left to the next owner; it counts this reader as
   * attached for `streamLimits.readerLeaseMs` more. Idempotent; never throws.
   */
  async stop(): Promise<void> {
    this.#stop.abort();
    if (this.#running === undefined) this.#ended.resolve();
    await this.#running;
  }

  async #pump(stream: StreamNumber): Promise<void> {
    const { log, clock, streams } = this.#deps;
    let told: ErrorReason | undefined;
    while (!this.#stop.signal.aborted && !log.ended(stream)) {
      try {
        if (streams.includes(stream))
          await this.#pull(stream, () => {
            told = undefined;
          });
        else await log.finish(stream, clock.nowMs());
      } catch (thrown) {
        if (this.#stop.signal.aborted || log.closed) return;
        const error = BelljarError.from(thrown);
        if (error.reason !== told) this.#deps.onError(error);
        told = error.reason;
        if (finalReasons.has(error.reason)) return;
        await clock.sleep(logLimits.retryMs, this.#stop.signal).catch(() => {});
      }
    }
  }

  /** Until the stream's end, or an error; the next reading begins at the log's end. */
  async #pull(stream: StreamNumber, onProgress: () => void): Promise<void> {
    const { agent, address, log, clock } = this.#deps;
    const { signal } = this.#stop;
    const reader = new OutputReader(agent, address, { stream, offset: log.end(stream), signal });
    try {
      for (;;) {
        // Asking for more acknowledges what came before: it is in the log by then.
        const data = await untilAborted(signal, reader.next());
        const timeMs = clock.nowMs();
        if (data === undefined) return await log.finish(stream, timeMs, reader.offset);
        await log.append({ stream, timeMs, offset: reader.offset - BigInt(data.length), data });
        onProgress();
        await log.room(stream, signal);
      }
    } finally {
      reader.abandon();
    }
  }
}

/** A call may wait for a new link; who stops does not wait for that. */
async function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelledError(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    throwIfAborted(signal);
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    work.catch(() => {});
  }
}
