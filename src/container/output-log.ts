/**
 * What the first process of a container has written, in files on the host: records with time, stream and offset, the oldest
 * file falling away when there are too many. Readers (`OutputCursor`, `readOutputHistory`) read the files, up to what has been written.
 *
 * A record is written, not synced: it survives the death of this process at any instant, not a loss of power. After the death
 * of its writer a log is opened at the last whole record, which is where the guest's ring is read on. Bytes that were lost on the way
 * show as a gap between offsets. One process at a time has a log open: the owner of the root.
 */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, cancelledError, logLimits } from "../base/index.ts";
import { type LogFile, type StreamPlace, summariseFile } from "./output-log-file.ts";
import { encodeRecord, type OutputRecord, type StreamNumber } from "./output-log-format.ts";

export interface OutputLogOptions {
  readonly dir: string;
  readonly fileMaxBytes?: number | undefined;
  readonly filesMax?: number | undefined;
}

/** Somebody who reads, as the log sees them. */
export interface LogReader {
  /** Its process has to wait for it now. */
  holdsUp(): boolean;
}

const FILE_NAME = /^(\d{8})-([0-9a-f]{16})\.log$/;
const streamNumbers = [1, 2] as const;

export class OutputLog {
  readonly #dir: string;
  readonly #fileMaxBytes: number;
  readonly #filesMax: number;
  /** The oldest first; the last one is written to. */
  readonly #files: LogFile[] = [];
  readonly #places: Readonly<Record<StreamNumber, StreamPlace>> = {
    1: { start: 0n, end: 0n, ended: false },
    2: { start: 0n, end: 0n, ended: false },
  };
  readonly #readers = new Map<StreamNumber, Set<LogReader>>(streamNumbers.map((stream) => [stream, new Set()]));
  readonly #listeners = new Set<() => void>();
  #handle: FileHandle | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(options: OutputLogOptions) {
    this.#dir = options.dir;
    this.#fileMaxBytes = options.fileMaxBytes ?? logLimits.fileMaxBytes;
    this.#filesMax = options.filesMax ?? logLimits.filesMax;
  }

  /** Makes the directory unless it is there. A torn end is cut off; what is damaged before it is left and skipped. */
  static async open(options: OutputLogOptions): Promise<OutputLog> {
    const log = new OutputLog(options);
    await mkdir(options.dir, { recursive: true, mode: 0o700 });
    await log.#load();
    return log;
  }

  /** Offset of the first byte of a stream that is still there, as far as is known without reading everything. */
  start(stream: StreamNumber): bigint {
    return this.#files[0]?.starts.get(stream) ?? this.#places[stream].start;
  }

  /** Where the stream continues. */
  end(stream: StreamNumber): bigint {
    return this.#places[stream].end;
  }

  /** Nothing comes after `end`. */
  ended(stream: StreamNumber): boolean {
    return this.#places[stream].ended;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * When it resolves, the bytes are in a file. An offset above `end` leaves a gap, which readers see.
   * @throws BelljarError `INTERNAL` for an offset below `end` or a stream that has ended; the system's error when nothing was
   * written: the same call may be made again
   */
  async append(piece: {
    readonly stream: StreamNumber;
    readonly timeMs: number;
    readonly offset: bigint;
    readonly data: Uint8Array;
  }): Promise<void> {
    await this.#inTurn(async () => {
      const max = logLimits.recordMaxBytes;
      for (let from = 0; from < piece.data.length; from += max) {
        const data = Buffer.from(piece.data.buffer, piece.data.byteOffset, piece.data.length).subarray(
          from,
          from + max,
        );
        await this.#write({ ...piece, kind: "data", offset: piece.offset + BigInt(from), data });
      }
    });
  }

  /** Nothing comes any more: at `offset`, or at `end`. Idempotent. */
  async finish(stream: StreamNumber, timeMs: number, offset?: bigint): Promise<void> {
    await this.#inTurn(async () => {
      if (this.ended(stream)) return;
      await this.#write({ timeMs, stream, kind: "end", offset: offset ?? this.end(stream), data: Buffer.alloc(0) });
    });
  }

  /** Ends every wait for more. What is written stays. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.notify();
    await this.#turn;
    await this.#handle?.close();
    this.#handle = undefined;
  }

  /** What there is at this instant: files, and how much of each. They only ever grow, and the oldest go. */
  snapshot(): readonly { readonly path: string; readonly sizeBytes: number }[] {
    return this.#files.map(({ path, size }) => ({ path, sizeBytes: size }));
  }

  /** Closes it, and removes its directory. */
  async remove(): Promise<void> {
    await this.close();
    await rm(this.#dir, { recursive: true, force: true });
  }

  /** Resolves when no attached reader of the stream is too far behind. @throws BelljarError `CANCELLED` */
  async room(stream: StreamNumber, signal: AbortSignal): Promise<void> {
    const readers = this.#readers.get(stream) ?? [];
    while (!this.#closed && [...readers].some((reader) => reader.holdsUp())) {
      await this.waitForChange(logLimits.heldCheckMs, signal);
    }
  }

  /** The oldest file whose sequence number is at least this; the last one when there is none. */
  fileFrom(sequence: number): LogFile | undefined {
    return this.#files.find((file) => file.sequence >= sequence) ?? this.#files.at(-1);
  }

  /** The file in which the byte is, or would be. */
  fileOf(stream: StreamNumber, offset: bigint): LogFile | undefined {
    const starts = (file: LogFile): boolean => {
      const start = file.starts.get(stream);
      return start !== undefined && start <= offset;
    };
    return this.#files.findLast(starts) ?? this.#files[0];
  }

  addReader(stream: StreamNumber, reader: LogReader): () => void {
    const readers = this.#readers.get(stream);
    readers?.add(reader);
    return () => {
      readers?.delete(reader);
      this.notify();
    };
  }

  /** Something was written, or read: whoever waits looks again. */
  notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** False when nothing has changed for so long. @throws BelljarError `CANCELLED` */
  async waitForChange(waitMs: number, signal?: AbortSignal): Promise<boolean> {
    if (signal?.aborted === true) throw cancelledError(signal);
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const changed = (): void => resolve(true);
    const aborted = (): void => reject(cancelledError(signal));
    const timer = setTimeout(() => resolve(false), waitMs);
    this.#listeners.add(changed);
    signal?.addEventListener("abort", aborted, { once: true });
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#listeners.delete(changed);
      signal?.removeEventListener("abort", aborted);
    }
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(async () => {
      if (this.#closed) throw new BelljarError("CANCELLED", "the output log was closed");
      await work();
    });
    this.#turn = turn.catch(() => {});
    await turn;
  }

  async #write(record: OutputRecord): Promise<void> {
    const place = this.#places[record.stream];
    if (record.offset < place.end || place.ended) {
      throw new BelljarError("INTERNAL", "output was to be logged out of order", {
        facts: { stream: record.stream, end: String(place.end), offset: String(record.offset), ended: place.ended },
      });
    }
    let file = this.#files.at(-1);
    const full = file === undefined || (file.size > 0 && file.size + record.data.length > this.#fileMaxBytes);
    if (file === undefined || full) file = await this.#beginFile(record.timeMs);
    await this.#put(file, encodeRecord(file.key, record));
    place.end = record.offset + BigInt(record.data.length);
    place.ended = record.kind === "end";
    this.notify();
  }

  /** At a position, so that what a failed write has left is overwritten by the next. */
  async #put(file: LogFile, bytes: Buffer): Promise<void> {
    this.#handle ??= await open(file.path, constants.O_WRONLY | constants.O_NOFOLLOW);
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.#handle.write(bytes, done, bytes.length - done, file.size + done);
      done += bytesWritten;
    }
    file.size += bytes.length;
  }

  async #beginFile(timeMs: number): Promise<LogFile> {
    const sequence = (this.#files.at(-1)?.sequence ?? 0) + 1;
    const key = randomBytes(8).toString("hex");
    const path = join(this.#dir, `${String(sequence).padStart(8, "0")}-${key}.log`);
    const file: LogFile = { sequence, key, path, size: 0, starts: new Map() };
    const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    const previous = this.#handle;
    this.#handle = handle;
    try {
      await this.#put(file, this.#opening(key, timeMs));
    } catch (error) {
      this.#handle = previous;
      await handle.close();
      await rm(path, { force: true });
      throw error;
    }
    await previous?.close();
    for (const stream of streamNumbers) file.starts.set(stream, this.end(stream));
    this.#files.push(file);
    await this.#dropOldFiles();
    return file;
  }

  /** Says of each stream where it stands, so that a file can be understood without the one before it. */
  #opening(key: string, timeMs: number): Buffer {
    const records = streamNumbers.flatMap((stream) => {
      const start = { timeMs, stream, kind: "start", offset: this.end(stream) } as const;
      return this.ended(stream) ? [start, { ...start, kind: "end" as const }] : [start];
    });
    return Buffer.concat(records.map((record) => encodeRecord(key, record)));
  }

  async #dropOldFiles(): Promise<void> {
    while (this.#files.length > this.#filesMax) {
      const oldest = this.#files.shift();
      if (oldest !== undefined) await rm(oldest.path, { force: true });
    }
  }

  async #load(): Promise<void> {
    for (const name of (await readdir(this.#dir)).sort()) {
      const [, sequence, key] = FILE_NAME.exec(name) ?? [];
      if (sequence === undefined || key === undefined) continue;
      this.#files.push({ sequence: Number(sequence), key, path: join(this.#dir, name), size: 0, starts: new Map() });
    }
    await this.#dropOldFiles();
    const unknown = new Set<StreamNumber>(streamNumbers);
    for (const file of this.#files.toReversed()) {
      const isLast = file === this.#files.at(-1);
      // The last file tells where each stream stands, unless it is damaged from its beginning.
      const { streams, end, size } = await summariseFile(file.path, file.key, isLast || unknown.size > 0);
      file.size = isLast ? end : size;
      if (isLast && end < size) await truncate(file.path, end);
      for (const [stream, place] of streams) {
        file.starts.set(stream, place.start);
        this.#places[stream].start = place.start;
        if (!unknown.delete(stream)) continue;
        this.#places[stream].end = place.end;
        this.#places[stream].ended = place.ended;
      }
    }
  }
}
