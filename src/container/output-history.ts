/** All streams of an output log together, in the order in which they were written: what `logs` shows. */
import { BelljarError, logLimits, throwIfAborted } from "../base/index.ts";
import type { OutputLog } from "./output-log.ts";
import { openForReading, readRecords } from "./output-log-file.ts";
import type { OutputRecord, StreamNumber } from "./output-log-format.ts";

export interface OutputHistoryOptions {
  /** Go on with what is still written, until every stream has ended. */
  readonly follow?: boolean | undefined;
  /** Milliseconds since the epoch: only what was written then or later. */
  readonly sinceMs?: number | undefined;
  /** Lines from the end of what is there now; a last line without a line feed counts. All unless told. */
  readonly tailLines?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface OutputHistoryRecord {
  readonly stream: StreamNumber;
  readonly timeMs: number;
  readonly offset: bigint;
  readonly data: Buffer;
  /** Bytes of the stream that are missing before this record. */
  readonly lostBytes: bigint;
}

/** What of a log is needed for it. */
export type ReadableLog = Pick<OutputLog, "closed" | "end" | "ended" | "fileFrom" | "waitForChange">;

/** How much there is of each stream. */
type Ends = Readonly<Record<StreamNumber, bigint>>;

/** A place between two records. */
interface Mark {
  sequence: number;
  position: number;
}

const LINE_FEED = 10;

/** @throws BelljarError `CANCELLED`, also when the log is closed while it follows */
export async function* readOutputHistory(
  log: ReadableLog,
  options: OutputHistoryOptions = {},
): AsyncGenerator<OutputHistoryRecord> {
  // What comes meanwhile is only for who follows: so many lines are so many.
  const now: Ends = { 1: log.end(1), 2: log.end(2) };
  const cuts = options.tailLines === undefined ? undefined : await findTail(log, now, options.tailLines, options);
  const mark: Mark = { sequence: 0, position: 0 };
  const next = new Map<StreamNumber, bigint>([
    [1, 0n],
    [2, 0n],
  ]);
  for (;;) {
    throwIfAborted(options.signal);
    const complete = log.ended(1) && log.ended(2);
    const before = `${log.end(1)} ${log.end(2)}`;
    for await (const record of recordsFrom(log, mark, options)) {
      if (record.kind !== "data") continue;
      if (options.follow !== true && record.offset >= now[record.stream]) continue;
      const lostBytes = record.offset - (next.get(record.stream) ?? 0n);
      const end = record.offset + BigInt(record.data.length);
      next.set(record.stream, end);
      if (record.timeMs < (options.sinceMs ?? 0)) continue;
      const cut = cuts?.get(record.stream) ?? 0n;
      if (end <= cut) continue;
      const from = cut > record.offset ? Number(cut - record.offset) : 0;
      yield {
        stream: record.stream,
        timeMs: record.timeMs,
        offset: record.offset + BigInt(from),
        data: Buffer.from(record.data.subarray(from)),
        lostBytes: from > 0 ? 0n : lostBytes,
      };
    }
    if (options.follow !== true || complete) return;
    while (before === `${log.end(1)} ${log.end(2)}` && !(log.ended(1) && log.ended(2))) {
      if (log.closed) throw new BelljarError("CANCELLED", "the output log was closed");
      await log.waitForChange(logLimits.heldCheckMs, options.signal);
    }
  }
}

/** The records from a place on that are there now; moves the place behind them. */
async function* recordsFrom(log: ReadableLog, mark: Mark, options: OutputHistoryOptions): AsyncGenerator<OutputRecord> {
  for (let file = log.fileFrom(mark.sequence); file !== undefined; file = log.fileFrom(mark.sequence)) {
    if (file.sequence < mark.sequence) return;
    if (file.sequence > mark.sequence) Object.assign(mark, { sequence: file.sequence, position: 0 });
    const { size } = file;
    const isLast = log.fileFrom(file.sequence + 1) === file;
    const handle = await openForReading(file.path).catch((error: unknown) => {
      // It has fallen away just now.
      if (log.fileFrom(mark.sequence) !== file) return undefined;
      throw error;
    });
    try {
      if (handle !== undefined) {
        for await (const { record, next } of readRecords(handle, file.key, mark.position, size)) {
          throwIfAborted(options.signal);
          mark.position = next;
          yield record;
        }
        mark.position = size;
      }
    } finally {
      await handle?.close();
    }
    if (isLast) return;
    mark.sequence += 1;
    mark.position = 0;
  }
}

/** For each stream the offset behind the last line feed that does not belong to the last `lines` lines. */
async function findTail(
  log: ReadableLog,
  ends: Ends,
  lines: number,
  options: OutputHistoryOptions,
): Promise<Map<StreamNumber, bigint>> {
  let count = 0;
  const unfinished = new Set<StreamNumber>();
  const lineFeeds = async function* (): AsyncGenerator<{ stream: StreamNumber; behind: bigint }> {
    for await (const record of recordsFrom(log, { sequence: 0, position: 0 }, options)) {
      const isWanted = record.kind === "data" && record.timeMs >= (options.sinceMs ?? 0);
      if (!isWanted || record.offset >= ends[record.stream]) continue;
      for (let at = record.data.indexOf(LINE_FEED); at !== -1; at = record.data.indexOf(LINE_FEED, at + 1)) {
        yield { stream: record.stream, behind: record.offset + BigInt(at + 1) };
      }
      if (record.data.at(-1) === LINE_FEED) unfinished.delete(record.stream);
      else unfinished.add(record.stream);
    }
  };
  for await (const _ of lineFeeds()) count += 1;
  const cuts = new Map<StreamNumber, bigint>();
  let skip = count + unfinished.size - lines;
  for (const stream of unfinished) {
    if (skip <= count) break;
    cuts.set(stream, ends[stream]);
    skip -= 1;
  }
  if (skip <= 0) return cuts;
  for await (const { stream, behind } of lineFeeds()) {
    if (behind > (cuts.get(stream) ?? 0n)) cuts.set(stream, behind);
    skip -= 1;
    if (skip === 0) break;
  }
  return cuts;
}
