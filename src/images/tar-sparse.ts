/**
 * The four ways in which tar archives say where a sparse file has data: GNU's old header type `S`, and PAX versions 0.0, 0.1
 * and 1.0. All become one list of segments, checked: ascending, within the file, adding up to the data that is stored.
 */
import type { ByteReader } from "./byte-reader.ts";
import type { TarSegment } from "./tar-entry.ts";
import { number, type RawHeader, TAR_BLOCK_BYTES, TarFormatError } from "./tar-header.ts";

/** Segments of one file: a map larger than this is taken for an attack on memory. */
const SEGMENTS_MAX = 1_000_000;

export interface SparseMap {
  readonly segments: readonly TarSegment[];
  readonly realSize: number;
  /** Bytes of the entry's data that the map itself took (PAX 1.0). */
  readonly mapBytes: number;
}

/** GNU type `S`: four segments in the header, 21 more in each extension block that follows it. */
export async function readOldGnuMap(header: RawHeader, reader: ByteReader): Promise<SparseMap> {
  const numbers: number[] = [];
  take(header.block, 386, 4, numbers);
  let more = header.block[482] !== 0;
  while (more) {
    const block = await reader.read(TAR_BLOCK_BYTES);
    if (block.length < TAR_BLOCK_BYTES) throw new TarFormatError("the archive ends within a sparse map");
    take(block, 0, 21, numbers);
    more = block[504] !== 0;
  }
  return { segments: pair(numbers), realSize: number(header.block, 483, 12, "real size"), mapBytes: 0 };
}

function take(block: Buffer, offset: number, count: number, into: number[]): void {
  for (let index = 0; index < count; index += 1) {
    const at = offset + index * 24;
    if (block[at] === 0) return;
    into.push(number(block, at, 12, "sparse offset"), number(block, at + 12, 12, "sparse length"));
    if (into.length > 2 * SEGMENTS_MAX) throw new TarFormatError("a sparse map has too many segments");
  }
}

/** PAX 0.1: `offset,length,offset,length...`; 0.0 repeats two records, which the caller has joined to the same form. */
export function parseListedMap(list: string, realSize: number): SparseMap {
  const numbers = list === "" ? [] : list.split(",").map(decimal);
  return { segments: pair(numbers), realSize, mapBytes: 0 };
}

/** PAX 1.0: decimal lines (count, then offset and length of each) at the start of the data, padded to whole blocks. */
export async function readMapInData(reader: ByteReader, storedBytes: number, realSize: number): Promise<SparseMap> {
  const numbers: number[] = [];
  let wanted = 1;
  let line = "";
  let mapBytes = 0;
  while (numbers.length < wanted) {
    if (mapBytes >= storedBytes) {
      throw new TarFormatError("a sparse map is longer than its file");
    }
    const block = await reader.read(TAR_BLOCK_BYTES);
    if (block.length < TAR_BLOCK_BYTES) throw new TarFormatError("the archive ends within a sparse map");
    mapBytes += TAR_BLOCK_BYTES;
    for (const byte of block) {
      if (numbers.length >= wanted) break;
      if (byte !== 0x0a) {
        line += String.fromCharCode(byte);
        continue;
      }
      const value = decimal(line);
      line = "";
      if (numbers.length === 0) {
        if (value > SEGMENTS_MAX) throw new TarFormatError("a sparse map has too many segments");
        wanted = 1 + 2 * value;
      }
      numbers.push(value);
    }
    if (line.length > 20) throw new TarFormatError("a sparse map has a line that is not a number");
  }
  return { segments: pair(numbers.slice(1)), realSize, mapBytes };
}

function decimal(value: string): number {
  const parsed = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(parsed)) throw new TarFormatError("a sparse map has a value that is not a number");
  return parsed;
}

function pair(numbers: readonly number[]): TarSegment[] {
  if (numbers.length % 2 !== 0) throw new TarFormatError("a sparse map ends within a segment");
  const segments: TarSegment[] = [];
  for (let index = 0; index + 1 < numbers.length; index += 2) {
    segments.push({ offset: numbers[index] ?? 0, length: numbers[index + 1] ?? 0 });
  }
  return segments;
}

/** @throws TarFormatError when the map does not fit the file or its data. */
export function checkMap(map: SparseMap, dataBytes: number): readonly TarSegment[] {
  let end = 0;
  let total = 0;
  const kept: TarSegment[] = [];
  for (const segment of map.segments) {
    if (segment.offset < end || segment.offset < 0 || segment.length < 0) {
      throw new TarFormatError("a sparse map has segments that overlap");
    }
    end = segment.offset + segment.length;
    total += segment.length;
    // An empty last segment is how GNU tar marks a hole at the end; the size says that already.
    if (segment.length > 0) kept.push(segment);
  }
  if (end > map.realSize) throw new TarFormatError("a sparse map reaches past the end of its file");
  if (total !== dataBytes) {
    throw new TarFormatError(`a sparse map speaks of ${total} bytes of data where ${dataBytes} are stored`);
  }
  return kept;
}
