/**
 * The standard input of a process, from the host's requests to its pipe. Bytes are taken in the order of their offsets and each
 * once, whatever is repeated; at most `inputBufferBytes` wait for the process to read them.
 */
import { linkLimits, streamLimits } from "../src/base/limits.ts";

/** Where the bytes go. */
export interface InputTarget {
  /** Calls back once the bytes are in the pipe, or can never be. */
  write(bytes: Uint8Array, written: () => void): void;
  /** Nothing more comes. */
  end(): void;
}

export interface InputWrite {
  readonly offset: number;
  readonly data: Uint8Array;
  readonly end: boolean;
  readonly waitMs: number;
}

export interface InputState {
  readonly accepted: number;
  readonly closed: boolean;
}

export class Input {
  readonly #target: InputTarget | undefined;
  readonly #changed = new Set<() => void>();
  #accepted = 0;
  #waitingBytes = 0;
  #ended = false;
  #closed = false;

  /** Without a target there is no standard input: everything is thrown away. */
  constructor(target: InputTarget | undefined) {
    this.#target = target;
    this.#closed = target === undefined;
  }

  /** Called when the process reads no more: it closed its input, or is gone. */
  close(): void {
    this.#closed = true;
    this.#notify();
  }

  async write(request: InputWrite, signal: AbortSignal): Promise<InputState> {
    const deadlineMs = performance.now() + Math.min(request.waitMs, linkLimits.longPollMs);
    let first = true;
    for (;;) {
      this.#take(request);
      const done = this.#accepted >= request.offset + request.data.length;
      if (this.#closed || this.#ended || done) break;
      // A part that was taken is answered at once: the host may send the rest while there is room again.
      if (!first && this.#accepted > request.offset) break;
      first = false;
      if (!(await this.#wait(deadlineMs - performance.now(), signal))) break;
    }
    return { accepted: this.#accepted, closed: this.#closed };
  }

  #take({ offset, data, end }: InputWrite): void {
    if (this.#closed || this.#ended || this.#target === undefined) return;
    // A gap: the bytes before have not come, or were not taken yet.
    if (offset > this.#accepted) return;
    const fresh = data.subarray(Math.min(data.length, this.#accepted - offset));
    const taken = fresh.subarray(0, Math.max(0, streamLimits.inputBufferBytes - this.#waitingBytes));
    if (taken.length > 0) {
      this.#accepted += taken.length;
      this.#waitingBytes += taken.length;
      this.#target.write(taken, () => {
        this.#waitingBytes -= taken.length;
        this.#notify();
      });
      this.#notify();
    }
    if (end && this.#accepted >= offset + data.length) {
      this.#ended = true;
      this.#target.end();
      this.#notify();
    }
  }

  /** False when the time is over. */
  async #wait(waitMs: number, signal: AbortSignal): Promise<boolean> {
    if (waitMs <= 0) return false;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const wake = (): void => resolve(true);
    const timer = setTimeout(() => resolve(false), waitMs);
    this.#changed.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    try {
      const woken = await promise;
      signal.throwIfAborted();
      return woken;
    } finally {
      clearTimeout(timer);
      this.#changed.delete(wake);
      signal.removeEventListener("abort", wake);
    }
  }

  #notify(): void {
    for (const wake of [...this.#changed]) wake();
  }
}
