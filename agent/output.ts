/**
 * One output of a process, from its pipe to the reader on the host.
 *
 * While a reader is attached (it asked within `readerLeaseMs`) nothing is lost: when the ring is full the pipe is no longer read,
 * it fills, and the process waits. Without a reader the process goes on and the oldest bytes fall out. A process starts with a
 * reader attached, since the one who started it needs a moment to ask.
 */
import { BelljarError } from "../src/base/errors.ts";
import { linkLimits, streamLimits } from "../src/base/limits.ts";
import type { CallContext } from "./methods.ts";
import { OutputRing } from "./ring.ts";

/** Where the bytes come from; reading can be held up. */
export interface OutputSource {
  pause(): void;
  resume(): void;
}

export interface OutputRead {
  readonly offset: number;
  readonly maxBytes: number;
  readonly waitMs: number;
  readonly follow: boolean;
  readonly detach: boolean;
  /** What the reader has no more use for: the bytes before this, or before `offset` when it does not say. */
  readonly acknowledged?: number | undefined;
}

export interface OutputChunk {
  readonly offset: number;
  readonly data: Buffer;
  readonly end: boolean;
}

/** The largest piece that a source can bring at once: as much room must be there before it is asked for more. */
export const SOURCE_CHUNK_BYTES = 64 * 1024;

/** What is kept of the beginning: enough for what the runtime has to say about a command that cannot be executed. */
const HEAD_BYTES = 1024;

export class Output {
  readonly #ring = new OutputRing(streamLimits.ringBytes);
  readonly #source: OutputSource;
  readonly #changed = new Set<() => void>();
  #head: Buffer = Buffer.alloc(0);
  #ended = false;
  #paused = false;
  #attached = true;
  #leaseTimer: NodeJS.Timeout | undefined;
  /** Where the next reading that follows continues, and the reading that it has to wait for. */
  #cursor = 0;
  #previous: Promise<void> = Promise.resolve();

  constructor(source: OutputSource) {
    this.#source = source;
    this.#attach();
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The first bytes that were ever written, at most `HEAD_BYTES`. */
  get head(): Buffer {
    return this.#head;
  }

  /** Called with each piece that the source brings. */
  push(bytes: Uint8Array): void {
    if (this.#head.length < HEAD_BYTES) {
      this.#head = Buffer.concat([this.#head, bytes.subarray(0, HEAD_BYTES - this.#head.length)]);
    }
    this.#ring.write(bytes);
    this.#adjustFlow();
    this.#notify();
  }

  /** Called when the source has brought everything. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#leaseTimer);
    this.#notify();
  }

  async read(request: OutputRead, context: CallContext): Promise<OutputChunk> {
    if (request.offset > this.#ring.end) {
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `offset ${request.offset} is beyond the ${this.#ring.end} bytes that were written`,
      );
    }
    this.#ring.acknowledge(request.acknowledged ?? request.offset);
    if (request.detach) this.#detach();
    else this.#attach();
    this.#adjustFlow();
    if (request.detach || request.maxBytes === 0) {
      return { offset: request.offset, data: Buffer.alloc(0), end: false };
    }
    // Readings that follow are answered in the order they came, each from where the one before it ended.
    const previous = this.#previous;
    const done = Promise.withResolvers<void>();
    this.#previous = done.promise;
    try {
      if (request.follow) await Promise.race([previous, aborted(context.signal)]);
      else this.#cursor = request.offset;
      return await this.#answer(request, context);
    } finally {
      done.resolve();
    }
  }

  async #answer(request: OutputRead, context: CallContext): Promise<OutputChunk> {
    const from = this.#cursor;
    await this.#waitForData(from, Math.min(request.waitMs, linkLimits.longPollMs), context.signal);
    await context.roomToSend();
    const { offset, data } = this.#ring.read(from, Math.min(request.maxBytes, streamLimits.chunkMaxBytes));
    this.#cursor = offset + data.length;
    this.#attach();
    return { offset, data, end: this.#ended && this.#cursor === this.#ring.end };
  }

  async #waitForData(offset: number, waitMs: number, signal: AbortSignal): Promise<void> {
    if (this.#ended || this.#ring.end > offset || waitMs === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = (): void => {
      if (this.#ended || this.#ring.end > offset) resolve();
    };
    const timer = setTimeout(resolve, waitMs);
    this.#changed.add(wake);
    signal.addEventListener("abort", () => resolve(), { once: true });
    try {
      await promise;
      signal.throwIfAborted();
    } finally {
      clearTimeout(timer);
      this.#changed.delete(wake);
    }
  }

  #attach(): void {
    this.#attached = true;
    if (this.#ended) return;
    clearTimeout(this.#leaseTimer);
    this.#leaseTimer = setTimeout(() => {
      this.#detach();
      this.#adjustFlow();
    }, streamLimits.readerLeaseMs).unref();
  }

  #detach(): void {
    this.#attached = false;
    clearTimeout(this.#leaseTimer);
  }

  #adjustFlow(): void {
    const hold = this.#attached && this.#ring.room < SOURCE_CHUNK_BYTES;
    if (hold === this.#paused) return;
    this.#paused = hold;
    if (hold) this.#source.pause();
    else this.#source.resume();
  }

  #notify(): void {
    for (const wake of [...this.#changed]) wake();
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
