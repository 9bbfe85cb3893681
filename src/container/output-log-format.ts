/**
 * A record of an output log: a header line that can be read by eye, the bytes, a line feed.
 *
 *     @3f9c0a1b2c3d4e5f 1732181234567 1 data 4096 6 9a3f01bc
 *     hello
 *
 * Key, milliseconds since the epoch, stream (1 standard output, 2 standard error), kind, offset in the stream, bytes that
 * follow, CRC-32 of the header up to there and of the bytes. `start` says where a stream continues in this file, `end` that it
 * has ended at this offset; neither has bytes. The key is in the file's name and random: what a guest writes can look like a
 * header but never be one, so that reading finds its way again behind damage.
 */
import { crc32 } from "node:zlib";
import { logLimits } from "../base/index.ts";

export type StreamNumber = 1 | 2;

export interface OutputRecord {
  readonly timeMs: number;
  readonly stream: StreamNumber;
  readonly kind: "start" | "data" | "end";
  readonly offset: bigint;
  /** Empty unless `kind` is data. */
  readonly data: Buffer;
}

export type Decoded =
  | { readonly kind: "record"; readonly record: OutputRecord; readonly next: number }
  /** The bytes end within what may be a record. */
  | { readonly kind: "short" }
  | { readonly kind: "damaged" };

const HEADER_MAX_BYTES = 128;
const HEADER = /^@([0-9a-f]{16}) (\d{1,15}) ([12]) (start|data|end) (\d{1,19}) (\d{1,9}) ([0-9a-f]{8})$/;
const LINE_FEED = 10;

/** The largest that a whole record can be. */
export const RECORD_MAX_BYTES = HEADER_MAX_BYTES + logLimits.recordMaxBytes + 1;

/** What stands between two records, the second one's beginning included. */
export function recordMark(key: string): Buffer {
  return Buffer.from(`\n@${key} `, "latin1");
}

/** `data` has at most `logLimits.recordMaxBytes`. */
export function encodeRecord(key: string, record: Omit<OutputRecord, "data"> & { readonly data?: Uint8Array }): Buffer {
  const data = record.data ?? new Uint8Array(0);
  const header = `@${key} ${Math.trunc(record.timeMs)} ${record.stream} ${record.kind} ${record.offset} ${data.length}`;
  const line = Buffer.from(`${header} ${checksum(header, data)}\n`, "latin1");
  return data.length === 0 ? line : Buffer.concat([line, data, Buffer.of(LINE_FEED)]);
}

/** The record that begins at `at`; its data is a part of `bytes`. */
export function decodeRecord(key: string, bytes: Buffer, at: number): Decoded {
  const line = bytes.subarray(at, at + HEADER_MAX_BYTES);
  const lineEnd = line.indexOf(LINE_FEED);
  if (lineEnd === -1) return { kind: line.length < HEADER_MAX_BYTES ? "short" : "damaged" };
  const text = line.toString("latin1", 0, lineEnd);
  const [, foundKey, time, stream, kind, offset, length, crc] = HEADER.exec(text) ?? [];
  if (foundKey !== key || offset === undefined) return { kind: "damaged" };
  const bytesInside = Number(length);
  if (bytesInside > logLimits.recordMaxBytes || (kind === "data") !== bytesInside > 0) return { kind: "damaged" };
  const dataAt = at + lineEnd + 1;
  const next = bytesInside === 0 ? dataAt : dataAt + bytesInside + 1;
  if (next > bytes.length) return { kind: "short" };
  const data = bytes.subarray(dataAt, dataAt + bytesInside);
  if (bytesInside > 0 && bytes[next - 1] !== LINE_FEED) return { kind: "damaged" };
  if (checksum(text.slice(0, text.lastIndexOf(" ")), data) !== crc) return { kind: "damaged" };
  const record: OutputRecord = {
    timeMs: Number(time),
    stream: stream === "1" ? 1 : 2,
    kind: kind === "data" || kind === "end" ? kind : "start",
    offset: BigInt(offset),
    data,
  };
  return { kind: "record", record, next };
}

function checksum(header: string, data: Uint8Array): string {
  return crc32(data, crc32(header)).toString(16).padStart(8, "0");
}
