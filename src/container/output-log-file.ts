/** One file of an output log, read: its records in order, whatever stands between them. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import {
  decodeRecord,
  type OutputRecord,
  RECORD_MAX_BYTES,
  recordMark,
  type StreamNumber,
} from "./output-log-format.ts";

/** Where a stream stands. */
export interface StreamPlace {
  /** Offset of the first byte, and of the one after the last. */
  start: bigint;
  end: bigint;
  ended: boolean;
}

export interface LogFile {
  readonly sequence: number;
  /** Stands at the beginning of each of its records. */
  readonly key: string;
  readonly path: string;
  /** Bytes of whole records, or of what lies between them. What is beyond is still being written. */
  size: number;
  /** Where each stream begins in this file; absent when the file does not tell. */
  readonly starts: Map<StreamNumber, bigint>;
}

/** Read at once; several records of the largest size. */
const BLOCK_BYTES = 4 * RECORD_MAX_BYTES;

export async function openForReading(path: string): Promise<FileHandle> {
  return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

/**
 * The whole records that lie between two positions, each with the position behind it. What is damaged is skipped. A record's
 * data is valid until the next one is asked for.
 */
export async function* readRecords(
  file: FileHandle,
  key: string,
  from: number,
  to: number,
): AsyncGenerator<{ readonly record: OutputRecord; readonly next: number }> {
  const mark = recordMark(key);
  const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(BLOCK_BYTES, to - from)));
  let position = from;
  while (position < to) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, to - position), position);
    if (bytesRead === 0) return;
    const block = buffer.subarray(0, bytesRead);
    const isLast = position + bytesRead >= to;
    let at = 0;
    while (at < bytesRead) {
      const found = decodeRecord(key, block, at);
      if (found.kind === "record") {
        at = found.next;
        yield { record: found.record, next: position + at };
        continue;
      }
      // It may be whole in the next block, which begins with it.
      if (found.kind === "short" && !isLast && at > 0) break;
      const next = block.indexOf(mark, at);
      if (next !== -1) at = next + 1;
      else if (isLast) return;
      else {
        // A mark may begin in this block and end in the next.
        at = Math.max(at + 1, bytesRead - mark.length);
        break;
      }
    }
    position += at;
  }
}

/** What a file says of the streams. `whole`: read to its end; otherwise only until it has said where each stream begins. */
export interface FileSummary {
  readonly streams: Map<StreamNumber, StreamPlace>;
  /** Position behind the last whole record that was read. */
  readonly end: number;
  readonly size: number;
}

export async function summariseFile(path: string, key: string, whole: boolean): Promise<FileSummary> {
  const streams = new Map<StreamNumber, StreamPlace>();
  const handle = await openForReading(path);
  try {
    const { size } = await handle.stat();
    let end = 0;
    for await (const { record, next } of readRecords(handle, key, 0, size)) {
      end = next;
      const place = streams.get(record.stream) ?? { start: record.offset, end: record.offset, ended: false };
      streams.set(record.stream, place);
      const recordEnd = record.offset + BigInt(record.data.length);
      if (recordEnd > place.end) place.end = recordEnd;
      if (record.kind === "end") place.ended = true;
      if (!whole && streams.size === 2) break;
    }
    return { streams, end, size };
  } finally {
    await handle.close();
  }
}
