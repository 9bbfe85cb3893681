/**
 * Reads one stream of an output log, from an offset on, and waits for what is still to come. An attached cursor holds the
 * process up when it is too far behind; one that is not attached never does, and is told a larger offset than it asked for
 * when the file in between has fallen away.
 */
import { BelljarError, logLimits, throwIfAborted } from "../base/index.ts";
import type { LogReader, OutputLog } from "./output-log.ts";
import { openForReading, readRecords } from "./output-log-file.ts";
import type { StreamNumber } from "./output-log-format.ts";

export interface OutputCursorOptions {
  readonly stream: StreamNumber;
  /** First byte wanted; 0 unless told. */
  readonly offset?: bigint | undefined;
  /** Holds the process up; not unless told. */
  readonly attached?: boolean | undefined;
  /** Of a reader that may vanish without a word: it counts as attached for so long after it last asked. */
  readonly leaseMs?: number | undefined;
}

export interface CursorRead {
  /** Continues where the last answer ended unless told. */
  readonly offset?: bigint | undefined;
  readonly maxBytes: number;
  /** Longest wait for a first byte. */
  readonly waitMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface CursorPiece {
  /** Larger than asked for when the bytes before are gone. */
  readonly offset: bigint;
  readonly data: Buffer;
  /** Nothing comes after `data`. */
  readonly end: boolean;
}

export class OutputCursor implements LogReader {
  readonly #log: OutputLog;
  readonly #stream: StreamNumber;
  readonly #leaseMs: number | undefined;
  #leaseEndMs: number;
  #detach: (() => void) | undefined;
  #offset: bigint;
  /** Where to read on: a file, and a position in it that is the beginning of a record. */
  #sequence = 0;
  #position = 0;

  constructor(log: OutputLog, options: OutputCursorOptions) {
    this.#log = log;
    this.#stream = options.stream;
    this.#offset = options.offset ?? 0n;
    this.#leaseMs = options.leaseMs;
    this.#leaseEndMs = performance.now() + (options.leaseMs ?? 0);
    this.#seek(this.#offset);
    if (options.attached === true) this.#detach = log.addReader(this.#stream, this);
  }

  /** Where the next reading continues. */
  get offset(): bigint {
    return this.#offset;
  }

  holdsUp(): boolean {
    if (this.#leaseMs !== undefined && performance.now() > this.#leaseEndMs) return false;
    return this.#log.end(this.#stream) - this.#offset > BigInt(logLimits.attachedLagMaxBytes);
  }

  /** From now on the process does not wait for this reader. It may read on. Idempotent. */
  detach(): void {
    this.#detach?.();
    this.#detach = undefined;
  }

  /**
   * The next bytes; none when there were none within `waitMs`, or at the end. One call at a time.
   * @throws BelljarError `CANCELLED`, also when the log is closed; `INVALID_ARGUMENT` for an offset that does not exist yet
   */
  async read(options: CursorRead): Promise<CursorPiece> {
    const untilMs = performance.now() + options.waitMs;
    if (options.offset !== undefined && options.offset !== this.#offset) this.#seek(options.offset);
    if (this.#offset > this.#log.end(this.#stream)) {
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `offset ${this.#offset} is beyond the ${this.#log.end(this.#stream)} bytes that were written`,
      );
    }
    for (;;) {
      throwIfAborted(options.signal);
      this.#renew();
      const seenEnd = this.#log.end(this.#stream);
      const piece = await this.#take(options.maxBytes);
      if (piece !== undefined) return piece;
      if (this.#log.closed) throw new BelljarError("CANCELLED", "the output log was closed");
      const waitMs = untilMs - performance.now();
      if (waitMs <= 0 || !(await this.#waitForMore(seenEnd, waitMs, options.signal))) {
        return { offset: this.#offset, data: Buffer.alloc(0), end: false };
      }
    }
  }

  #seek(offset: bigint): void {
    this.#offset = offset;
    this.#sequence = this.#log.fileOf(this.#stream, offset)?.sequence ?? 0;
    this.#position = 0;
  }

  #renew(): void {
    this.#leaseEndMs = performance.now() + (this.#leaseMs ?? 0);
  }

  /** Undefined when there is nothing more for now. */
  async #take(maxBytes: number): Promise<CursorPiece | undefined> {
    for (;;) {
      // Looked at first: whatever is written later is after it.
      const ended = this.#log.ended(this.#stream);
      const end = this.#log.end(this.#stream);
      const file = this.#log.fileFrom(this.#sequence);
      if (file !== undefined && file.sequence !== this.#sequence) {
        this.#sequence = file.sequence;
        this.#position = 0;
      }
      const size = file?.size ?? 0;
      if (file !== undefined && this.#position < size && this.#offset < end && maxBytes > 0) {
        const taken = await this.#takeFrom(file.path, file.key, size, maxBytes);
        if (taken !== undefined) return { ...taken, end: ended && this.#offset === end };
      }
      const isLast = file === undefined || this.#log.fileFrom(this.#sequence + 1)?.sequence === this.#sequence;
      if (!isLast && this.#offset < end && maxBytes > 0) {
        this.#sequence += 1;
        this.#position = 0;
        continue;
      }
      if (!ended || maxBytes === 0) return undefined;
      // The last bytes may have been lost: the end is where the stream says that it is.
      this.#offset = end;
      return { offset: end, data: Buffer.alloc(0), end: true };
    }
  }

  async #takeFrom(
    path: string,
    key: string,
    size: number,
    maxBytes: number,
  ): Promise<{ offset: bigint; data: Buffer } | undefined> {
    const handle = await openForReading(path).catch((error: unknown) => {
      // It has fallen away just now.
      if (this.#log.fileFrom(this.#sequence)?.path !== path) return undefined;
      throw error;
    });
    if (handle === undefined) return undefined;
    const pieces: Buffer[] = [];
    let bytes = 0;
    let position = size;
    let next = this.#offset;
    try {
      for await (const { record, next: behind } of readRecords(handle, key, this.#position, size)) {
        const recordEnd = record.offset + BigInt(record.data.length);
        if (record.stream === this.#stream && record.kind === "data" && recordEnd > next) {
          if (record.offset > next && bytes > 0) break;
          if (record.offset > next) next = record.offset;
          const from = Number(next - record.offset);
          const piece = Buffer.from(record.data.subarray(from, from + maxBytes - bytes));
          pieces.push(piece);
          bytes += piece.length;
          next += BigInt(piece.length);
          if (next < recordEnd) break;
        }
        this.#position = behind;
        if (bytes === maxBytes) break;
      }
      position = bytes > 0 ? this.#position : size;
    } finally {
      await handle.close();
    }
    this.#position = position;
    if (bytes === 0) return undefined;
    this.#offset = next;
    this.#log.notify();
    return { offset: next - BigInt(bytes), data: Buffer.concat(pieces) };
  }

  async #waitForMore(seenEnd: bigint, waitMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    const untilMs = performance.now() + waitMs;
    while (this.#log.end(this.#stream) === seenEnd && !this.#log.ended(this.#stream) && !this.#log.closed) {
      this.#renew();
      const leftMs = untilMs - performance.now();
      if (leftMs <= 0) return false;
      await this.#log.waitForChange(Math.min(leftMs, this.#leaseMs ?? leftMs), signal);
    }
    return true;
  }
}
