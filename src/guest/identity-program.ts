/**
 * A program of 300 bytes that gives the guest fresh random numbers and the right time, as often as it is told to. Two VMs of one memory image would draw the
 * same numbers: what is written to /dev/urandom is only mixed in at the kernel's next reseeding, which only an ioctl brings about,
 * and Node has none; nor has any package that the guest image could take for it and stay small.
 *
 * It reads records from its standard input (`agent/identity.ts` writes them): struct timespec, or zeros to leave the clock alone;
 * then struct rand_pool_info with 64 bytes. For each it writes one byte when the kernel has taken it; it ends with status 1 when the
 * kernel refused a step, or what it read was no whole record. It is started ahead and waits: in a copy of a guest that was just put
 * into another process, starting a program is the slowest thing there is.
 */
import { BelljarError } from "../base/index.ts";

const RECORD_BYTES = 88;
const ENTROPY_OFFSET = 16;
/** Where the program is mapped, header included. */
const BASE = 0x400000;
const HEADER_BYTES = 64 + 56;

/** Opcodes that load a register with a number of four bytes. */
const EAX = 0xb8;
const EDX = 0xba;
const ESI = 0xbe;
const EDI = 0xbf;

/** Numbers of Linux's interface, from its headers. */
const linux = {
  read: 0,
  write: 1,
  open: 2,
  ioctl: 16,
  exit: 60,
  clockSettime: 227,
  writeOnly: 1,
  standardOutput: 1,
  addEntropy: 0x40085203,
  reseed: 0x5207,
} as const;

/** @throws BelljarError `UNSUPPORTED_HOST` */
export function identityProgram(architecture: string): Buffer {
  if (architecture === "x64") return executable(x64Code);
  throw new BelljarError("UNSUPPORTED_HOST", `there is no identity program for the architecture ${architecture}`);
}

interface Addresses {
  readonly path: number;
  readonly record: number;
}

function x64Code({ path, record }: Addresses): Buffer {
  const bytes: number[] = [];
  const toFail: number[] = [];
  const put = (...more: number[]): void => void bytes.push(...more);
  const immediate = (opcode: number, value: number): void => put(opcode, ...littleEndian(value));
  const systemCall = (number: number, first: number | "ebx", second?: number, third?: number): void => {
    immediate(EAX, number);
    if (first === "ebx") put(0x89, 0xdf);
    else immediate(EDI, first);
    if (second !== undefined) immediate(ESI, second);
    if (third !== undefined) immediate(EDX, third);
    put(0x0f, 0x05);
  };
  /** A jump whose distance is not known yet; 0x75 when not equal, 0x78 when negative. */
  const failWhen = (opcode: number): void => {
    put(opcode, 0);
    toFail.push(bytes.length);
  };
  const failUnlessZero = (): void => {
    put(0x85, 0xc0);
    failWhen(0x75);
  };

  systemCall(linux.open, path, linux.writeOnly);
  put(0x85, 0xc0);
  failWhen(0x78);
  put(0x89, 0xc3);
  const next = bytes.length;
  // The whole record, or nothing is done.
  systemCall(linux.read, 0, record, RECORD_BYTES);
  put(0x83, 0xf8, RECORD_BYTES);
  failWhen(0x75);
  systemCall(linux.ioctl, "ebx", linux.addEntropy, record + ENTROPY_OFFSET);
  failUnlessZero();
  systemCall(linux.ioctl, "ebx", linux.reseed, 0);
  failUnlessZero();
  // A time of zero is no time.
  put(0x83, 0x3c, 0x25, ...littleEndian(record), 0);
  put(0x74, 0);
  const skipsClock = bytes.length;
  systemCall(linux.clockSettime, 0, record);
  failUnlessZero();
  bytes[skipsClock - 1] = bytes.length - skipsClock;
  systemCall(linux.write, linux.standardOutput, record, 1);
  // Back to the next record.
  put(0xe9, ...littleEndian(next - (bytes.length + 5)));
  const fail = bytes.length;
  immediate(EDI, 1);
  immediate(EAX, linux.exit);
  put(0x0f, 0x05);
  for (const at of toFail) bytes[at - 1] = fail - at;
  return Buffer.from(bytes);
}

function littleEndian(value: number): Buffer {
  const number = Buffer.alloc(4);
  number.writeInt32LE(value | 0);
  return number;
}

/** One loaded segment: headers, code, the device's path, and room for the record behind them. */
function executable(assemble: (addresses: Addresses) => Buffer): Buffer {
  const path = Buffer.from("/dev/urandom\0");
  const { length } = assemble({ path: BASE, record: BASE });
  const pathAt = BASE + HEADER_BYTES + length;
  const code = assemble({ path: pathAt, record: pathAt + path.length });
  const fileSize = HEADER_BYTES + code.length + path.length;
  const header = Buffer.alloc(HEADER_BYTES);
  // ELF64, little-endian, executable, x86-64, one program header.
  header.write("7f454c46020101", 0, "hex");
  header.writeUInt16LE(2, 16);
  header.writeUInt16LE(62, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(BASE + HEADER_BYTES), 24);
  header.writeBigUInt64LE(64n, 32);
  header.writeUInt16LE(64, 52);
  header.writeUInt16LE(56, 54);
  header.writeUInt16LE(1, 56);
  // PT_LOAD, readable, writable, executable.
  header.writeUInt32LE(1, 64);
  header.writeUInt32LE(7, 68);
  header.writeBigUInt64LE(BigInt(BASE), 80);
  header.writeBigUInt64LE(BigInt(BASE), 88);
  header.writeBigUInt64LE(BigInt(fileSize), 96);
  header.writeBigUInt64LE(BigInt(fileSize + RECORD_BYTES), 104);
  header.writeBigUInt64LE(0x1000n, 112);
  return Buffer.concat([header, code, path]);
}
