/**
 * The little of ELF that the build needs, for 64-bit little-endian files: what libraries a program asks for, what a kernel
 * module says about itself, and a program without its symbol table. Files come from packages whose digests were checked;
 * offsets are checked all the same, so that a file of another kind gives an error and not nonsense.
 */
import { BelljarError } from "../base/index.ts";

const HEADER_SIZE = 64;
const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const DT_NULL = 0;
const DT_NEEDED = 1;
const DT_STRTAB = 5;

export interface SectionHeader {
  readonly name: string;
  /** Where the header itself stands. */
  readonly headerOffset: number;
  readonly offset: number;
  readonly size: number;
}

export function isElf(data: Buffer): boolean {
  return data.length >= HEADER_SIZE && data.readUInt32BE(0) === 0x7f454c46 && data[4] === 2 && data[5] === 1;
}

/**
 * Names of the shared libraries that a program or library asks for; none for a static program. Reads what the dynamic loader
 * would read, so it works on a program without its list of sections too.
 */
export function neededLibraries(data: Buffer, name: string): string[] {
  const segments = readSegments(data, name);
  const dynamic = segments.find((segment) => segment.type === PT_DYNAMIC);
  if (dynamic === undefined) return [];
  const nameOffsets: number[] = [];
  let stringsAddress = 0;
  for (let at = dynamic.offset; at + 16 <= dynamic.offset + dynamic.fileSize; at += 16) {
    const tag = number64(data, at, name);
    if (tag === DT_NULL) break;
    if (tag === DT_NEEDED) nameOffsets.push(number64(data, at + 8, name));
    if (tag === DT_STRTAB) stringsAddress = number64(data, at + 8, name);
  }
  const holder = segments.find(
    ({ type, address, fileSize }) =>
      type === PT_LOAD && stringsAddress >= address && stringsAddress < address + fileSize,
  );
  if (holder === undefined) {
    if (nameOffsets.length === 0) return [];
    throw malformed(name, "the names of its libraries lie outside of it");
  }
  const strings = holder.offset + (stringsAddress - holder.address);
  return nameOffsets.map((offset) => textAt(data, strings + offset, name));
}

/** The `key=value` lines of a kernel module's description; a key may occur more than once. */
export function moduleInfo(data: Buffer, name: string): (readonly [key: string, value: string])[] {
  const section = sectionHeaders(data, name).find((found) => found.name === ".modinfo");
  if (section === undefined) throw malformed(name, "it has no .modinfo section, so it is not a kernel module");
  const lines = data.toString("latin1", section.offset, section.offset + section.size).split("\0");
  return lines
    .filter((line) => line.includes("="))
    .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)] as const);
}

/** A copy without what is not loaded when it runs: symbol tables, debugging data, and the list of sections itself. */
export function withoutSymbols(data: Buffer, name: string): Buffer {
  const loaded = readSegments(data, name).filter((segment) => segment.type === PT_LOAD);
  const end = Math.max(HEADER_SIZE, ...loaded.map((segment) => segment.offset + segment.fileSize));
  if (end > data.length) throw malformed(name, "it is shorter than its headers say");
  const stripped = Buffer.from(data.subarray(0, end));
  // No section headers: offset, count and index of the names are zero.
  stripped.writeBigUInt64LE(0n, 40);
  stripped.writeUInt16LE(0, 60);
  stripped.writeUInt16LE(0, 62);
  return stripped;
}

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: number;
  readonly fileSize: number;
}

function readSegments(data: Buffer, name: string): Segment[] {
  requireElf(data, name);
  const table = number64(data, 32, name);
  const size = data.readUInt16LE(54);
  const count = data.readUInt16LE(56);
  if (table + size * count > data.length) throw malformed(name, "its list of segments lies outside of it");
  return Array.from({ length: count }, (_, index) => {
    const at = table + size * index;
    return {
      type: data.readUInt32LE(at),
      offset: number64(data, at + 8, name),
      address: number64(data, at + 16, name),
      fileSize: number64(data, at + 32, name),
    };
  });
}

/** The list of sections; none in a file from which it was taken. */
export function sectionHeaders(data: Buffer, name: string): SectionHeader[] {
  requireElf(data, name);
  const table = number64(data, 40, name);
  const size = data.readUInt16LE(58);
  const count = data.readUInt16LE(60);
  const namesIndex = data.readUInt16LE(62);
  if (table === 0 || count === 0) return [];
  if (table + size * count > data.length) throw malformed(name, "its list of sections lies outside of it");
  const namesOffset = number64(data, table + size * namesIndex + 24, name);
  return Array.from({ length: count }, (_, index) => {
    const at = table + size * index;
    return {
      name: textAt(data, namesOffset + data.readUInt32LE(at), name),
      headerOffset: at,
      offset: number64(data, at + 24, name),
      size: number64(data, at + 32, name),
    };
  });
}

function requireElf(data: Buffer, name: string): void {
  if (!isElf(data)) throw malformed(name, "it is not a 64-bit little-endian ELF file");
}

function number64(data: Buffer, offset: number, name: string): number {
  if (offset < 0 || offset + 8 > data.length) throw malformed(name, `offset ${offset} lies outside of it`);
  return Number(data.readBigUInt64LE(offset));
}

function textAt(data: Buffer, offset: number, name: string): string {
  const end = data.indexOf(0, offset);
  if (offset < 0 || offset > data.length || end === -1) throw malformed(name, `offset ${offset} lies outside of it`);
  return data.toString("latin1", offset, end);
}

function malformed(name: string, problem: string): BelljarError {
  return new BelljarError("GUEST_BUILD_FAILED", `${name} cannot be used: ${problem}`, { facts: { file: name } });
}
