/**
 * Writes entries in one plain form, which GNU tar reads without guessing: ustar headers; GNU long-name records where a name
 * does not fit (they are bytes, while GNU tar converts PAX names between character sets); PAX records for numbers that do not
 * fit, fractions of seconds, extended attributes and sparse maps (format 1.0).
 */
import type { TarEntry, TarEntryKind } from "./tar-entry.ts";
import { TAR_BLOCK_BYTES } from "./tar-header.ts";

const TYPES: Readonly<Record<TarEntryKind, string>> = {
  file: "0",
  hardLink: "1",
  symlink: "2",
  characterDevice: "3",
  blockDevice: "4",
  directory: "5",
  fifo: "6",
};
const OCTAL_ID_MAX = 0o7777777;
const OCTAL_SIZE_MAX = 0o77777777777;

/** Two blocks of zeros. */
export const TAR_END = Buffer.alloc(2 * TAR_BLOCK_BYTES);

/** All that comes before the data of `entry`: headers, and the sparse map, which counts as data in the archive. */
export function encodeEntryHead(entry: TarEntry): Buffer {
  const parts: Buffer[] = [];
  const map = entry.segments === undefined ? undefined : padded(encodeMap(entry));
  const storedSize = entry.kind === "file" ? entry.storedBytes + (map?.length ?? 0) : 0;
  const records = paxRecords(entry, storedSize);
  if (records.length > 0) parts.push(extension("x", Buffer.concat(records)));
  if (entry.path.length > 100) parts.push(extension("L", Buffer.from(`${entry.path}\0`, "latin1")));
  if (entry.linkTarget.length > 100) parts.push(extension("K", Buffer.from(`${entry.linkTarget}\0`, "latin1")));
  parts.push(
    encodeHeader({
      name: entry.path,
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      size: storedSize,
      seconds: entry.mtime.seconds,
      type: TYPES[entry.kind],
      linkName: entry.linkTarget,
      deviceMajor: entry.deviceMajor,
      deviceMinor: entry.deviceMinor,
    }),
  );
  if (map !== undefined) parts.push(map);
  return Buffer.concat(parts);
}

/** Zeros that fill the last block of `bytes` bytes of data. */
export function padding(bytes: number): Buffer {
  return Buffer.alloc((TAR_BLOCK_BYTES - (bytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES);
}

function paxRecords(entry: TarEntry, storedSize: number): Buffer[] {
  const records: Buffer[] = [];
  const add = (key: string, value: string | Buffer): void => {
    records.push(paxRecord(key, typeof value === "string" ? Buffer.from(value, "latin1") : value));
  };
  const { seconds, nanoseconds } = entry.mtime;
  if (nanoseconds !== 0 || seconds < 0 || seconds > OCTAL_SIZE_MAX) add("mtime", decimalTime(seconds, nanoseconds));
  if (entry.uid > OCTAL_ID_MAX) add("uid", String(entry.uid));
  if (entry.gid > OCTAL_ID_MAX) add("gid", String(entry.gid));
  if (storedSize > OCTAL_SIZE_MAX) add("size", String(storedSize));
  if (entry.segments !== undefined) {
    add("GNU.sparse.major", "1");
    add("GNU.sparse.minor", "0");
    add("GNU.sparse.realsize", String(entry.sizeBytes));
  }
  const names = [...entry.xattrs.keys()].sort();
  for (const name of names) {
    // GNU tar's own escapes, because `=` ends the key of a record.
    const escaped = name.replaceAll("%", "%25").replaceAll("=", "%3D");
    add(`SCHILY.xattr.${escaped}`, entry.xattrs.get(name) ?? "");
  }
  return records;
}

function decimalTime(seconds: number, nanoseconds: number): string {
  if (seconds >= 0 || nanoseconds === 0) return `${seconds}.${String(nanoseconds).padStart(9, "0")}`;
  // -2 s + 0.25 s is written -1.75.
  const whole = -(seconds + 1);
  return `-${whole}.${String(1_000_000_000 - nanoseconds).padStart(9, "0")}`;
}

function paxRecord(key: string, value: Buffer): Buffer {
  const rest = key.length + value.length + 3;
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, "latin1"), value, Buffer.from("\n")]);
}

function encodeMap(entry: TarEntry): Buffer {
  const segments = [...(entry.segments ?? [])];
  const last = segments.at(-1);
  // GNU tar takes the size of the file from the end of the last segment: a hole at the end needs an empty one.
  if (last === undefined || last.offset + last.length < entry.sizeBytes)
    segments.push({ offset: entry.sizeBytes, length: 0 });
  const lines = [segments.length, ...segments.flatMap((segment) => [segment.offset, segment.length])];
  return Buffer.from(`${lines.join("\n")}\n`, "latin1");
}

function extension(type: "x" | "L" | "K", data: Buffer): Buffer {
  const header = encodeHeader({
    name: type === "x" ? "./PaxHeaders/entry" : "././@LongLink",
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: data.length,
    seconds: 0,
    type,
    linkName: "",
    deviceMajor: 0,
    deviceMinor: 0,
  });
  return Buffer.concat([header, padded(data)]);
}

function padded(data: Buffer): Buffer {
  return Buffer.concat([data, padding(data.length)]);
}

interface HeaderFields {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly seconds: number;
  readonly type: string;
  readonly linkName: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

function encodeHeader(fields: HeaderFields): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_BYTES);
  const octal = (value: number, offset: number, length: number): void => {
    // What does not fit stands in a PAX record, which wins over the header.
    const fits = value >= 0 && value < 8 ** (length - 1);
    block.write((fits ? value : 0).toString(8).padStart(length - 1, "0"), offset, "latin1");
  };
  block.write(fields.name.slice(0, 100), 0, "latin1");
  octal(fields.mode, 100, 8);
  octal(fields.uid, 108, 8);
  octal(fields.gid, 116, 8);
  octal(fields.size, 124, 12);
  octal(fields.seconds, 136, 12);
  block.write("        ", 148, "latin1");
  block.write(fields.type, 156, "latin1");
  block.write(fields.linkName.slice(0, 100), 157, "latin1");
  block.write("ustar\0" + "00", 257, "latin1");
  octal(fields.deviceMajor, 329, 8);
  octal(fields.deviceMinor, 337, 8);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}
