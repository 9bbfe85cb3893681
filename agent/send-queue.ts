/**
 * What waits to be written to the port, in order. Bounded by those who send: they wait for room before they make more. Emptied
 * when a connection ends, since nobody would read the rest.
 */
import { linkLimits, streamLimits } from "../src/base/limits.ts";
import type { Port } from "./port.ts";

export class SendQueue {
  readonly #port: Port;
  #waiting: Uint8Array[] = [];
  #bytes = 0;
  /** Raised when the queue is emptied, so that a write under way does not count itself out of the next one. */
  #epoch = 0;
  #writing = false;
  readonly #buffers = new BufferPool();
  readonly #waitingForRoom: (() => void)[] = [];

  constructor(port: Port) {
    this.#port = port;
  }

  send(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    this.#bytes += bytes.length;
    if (!this.#writing) void this.#write();
  }

  /** What was not yet written never will be. */
  empty(): void {
    this.#waiting = [];
    this.#bytes = 0;
    this.#epoch += 1;
    this.#wake();
  }

  /** A buffer for what is going to be sent; it comes back by itself. */
  buffer(size: number): Buffer {
    return this.#buffers.take(size);
  }

  /** Resolves when there is room for more; throws when nobody waits for it any more. */
  async room(signal?: AbortSignal): Promise<void> {
    while (this.#bytes >= linkLimits.sendQueueMaxBytes && signal?.aborted !== true) {
      await new Promise<void>((resolve) => this.#waitingForRoom.push(resolve));
    }
    signal?.throwIfAborted();
  }

  async #write(): Promise<void> {
    this.#writing = true;
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        const epoch = this.#epoch;
        await this.#port.write(next);
        this.#buffers.giveBack(next);
        // The queue may have been emptied meanwhile, and its count with it.
        if (epoch === this.#epoch) this.#bytes -= next.length;
        this.#wake();
      }
    } finally {
      this.#writing = false;
    }
  }

  #wake(): void {
    for (const wake of this.#waitingForRoom.splice(0)) wake();
  }
}

/**
 * Large buffers for frames, used again and again: in an emulated guest the page faults of a new one take longer than all that
 * is done with it.
 */
class BufferPool {
  readonly #free: Buffer[] = [];
  readonly #own = new WeakSet<ArrayBufferLike>();

  take(size: number): Buffer {
    if (size < POOLED_MIN_BYTES || size > POOLED_BYTES) return Buffer.allocUnsafe(size);
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(POOLED_BYTES);
    this.#own.add(buffer.buffer);
    return buffer.subarray(0, size);
  }

  /** Takes back what came from here; anything else is left alone. */
  giveBack(bytes: Uint8Array): void {
    if (this.#own.has(bytes.buffer) && this.#free.length < streamLimits.requestsAhead) {
      this.#free.push(Buffer.from(bytes.buffer, 0, POOLED_BYTES));
    }
  }
}

/** A full answer of `ReadOutput` with all that stands around its data. */
const POOLED_BYTES = streamLimits.chunkMaxBytes + 64;
const POOLED_MIN_BYTES = 64 * 1024;
