/**
 * The 512-byte header block of a tar archive (V7, ustar and GNU) and PAX records, as bytes in and plain values out. Strict:
 * a field that is not what the format says is an error, never a guess, because another program might guess otherwise.
 */

export const TAR_BLOCK_BYTES = 512;

export interface RawHeader {
  readonly name: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSeconds: number;
  readonly type: string;
  readonly linkName: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly dialect: "v7" | "ustar" | "gnu";
  readonly block: Buffer;
}

/** What is wrong with an archive; the layer builder adds entry and layer, and makes it a BelljarError. */
export class TarFormatError extends Error {
  override readonly name = "TarFormatError";
}

/** @throws TarFormatError */
export function decodeHeader(block: Buffer): RawHeader {
  checkSum(block);
  const magic = block.toString("latin1", 257, 265);
  const dialect = magic === "ustar  \0" ? "gnu" : magic.startsWith("ustar\0") ? "ustar" : "v7";
  const prefix = dialect === "ustar" ? text(block, 345, 155) : "";
  const name = text(block, 0, 100);
  const hasDevices = dialect !== "v7";
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    mode: number(block, 100, 8, "mode"),
    uid: number(block, 108, 8, "uid"),
    gid: number(block, 116, 8, "gid"),
    size: number(block, 124, 12, "size"),
    mtimeSeconds: number(block, 136, 12, "mtime"),
    type: block[156] === 0 ? "0" : String.fromCharCode(block[156] ?? 0),
    linkName: text(block, 157, 100),
    deviceMajor: hasDevices ? number(block, 329, 8, "device major") : 0,
    deviceMinor: hasDevices ? number(block, 337, 8, "device minor") : 0,
    dialect,
    block,
  };
}

function checkSum(block: Buffer): void {
  const stated = number(block, 148, 8, "checksum");
  let unsigned = 8 * 32;
  let signed = 8 * 32;
  for (let index = 0; index < TAR_BLOCK_BYTES; index += 1) {
    if (index >= 148 && index < 156) continue;
    const byte = block[index] ?? 0;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  // Some old programs summed signed characters.
  if (stated !== unsigned && stated !== signed) throw new TarFormatError("a header has a wrong checksum");
}

function text(block: Buffer, offset: number, length: number): string {
  const field = block.subarray(offset, offset + length);
  const end = field.indexOf(0);
  return field.toString("latin1", 0, end === -1 ? length : end);
}

/** An octal number in text, or GNU's base-256 form (first bit set). */
export function number(block: Buffer, offset: number, length: number, what: string): number {
  const field = block.subarray(offset, offset + length);
  const first = field[0] ?? 0;
  if ((first & 0x80) !== 0) return base256(field, what);
  const digits = field
    .toString("latin1")
    .replace(/^[ \0]+/, "")
    .replace(/[ \0].*$/s, "");
  if (!/^[0-7]*$/.test(digits)) throw new TarFormatError(`the field ${what} is not a number`);
  return digits === "" ? 0 : Number.parseInt(digits, 8);
}

function base256(field: Buffer, what: string): number {
  const negative = field[0] === 0xff;
  if (!negative && field[0] !== 0x80) throw new TarFormatError(`the field ${what} is out of range`);
  let value = 0n;
  for (const byte of field.subarray(1)) value = (value << 8n) | BigInt(byte);
  if (negative) value -= 1n << BigInt(8 * (field.length - 1));
  const result = Number(value);
  if (!Number.isSafeInteger(result)) throw new TarFormatError(`the field ${what} is out of range`);
  return result;
}

/** PAX records in order: `length key=value\n`, the length counting the whole record. Keys and values are bytes. */
export function decodePax(data: Buffer): [key: string, value: Buffer][] {
  const records: [string, Buffer][] = [];
  let offset = 0;
  while (offset < data.length) {
    const space = data.indexOf(0x20, offset);
    const digits = space === -1 ? "" : data.toString("latin1", offset, space);
    const length = /^[0-9]{1,10}$/.test(digits) ? Number(digits) : 0;
    const end = offset + length;
    if (length < digits.length + 3 || end > data.length || data[end - 1] !== 0x0a) {
      throw new TarFormatError("a PAX header has a record whose length is wrong");
    }
    const equals = data.indexOf(0x3d, space + 1);
    if (equals === -1 || equals >= end) throw new TarFormatError("a PAX header has a record without a value");
    records.push([data.toString("latin1", space + 1, equals), data.subarray(equals + 1, end - 1)]);
    offset = end;
  }
  return records;
}

/** A decimal number as PAX writes it, for sizes and ids. */
export function paxInteger(value: string, what: string): number {
  const parsed = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(parsed)) throw new TarFormatError(`the PAX record ${what} is not a number`);
  return parsed;
}

/** Seconds since the epoch with a fraction, as PAX writes times. */
export function paxTime(value: string): { seconds: number; nanoseconds: number } {
  const match = /^(-?)([0-9]{1,12})(?:\.([0-9]*))?$/.exec(value);
  if (match === null) throw new TarFormatError("the PAX record mtime is not a time");
  const whole = Number(match[2]);
  const nanoseconds = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] !== "-") return { seconds: whole, nanoseconds };
  return nanoseconds === 0
    ? { seconds: -whole, nanoseconds: 0 }
    : { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds };
}
