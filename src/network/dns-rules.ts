/**
 * Which names the guest may ask its name server for, as rules of nftables: a question is let through when it is one question, of a
 * common type, for exactly a name that is allowed, and is refused otherwise. So nothing can be said to the outside in the names that
 * are asked for. There is no program in the way that could end or be overrun.
 *
 * Numbers are offsets and lengths in bits from the beginning of the UDP header, as `@th` counts them.
 */
import { networkLimits } from "../base/index.ts";

const UDP_HEADER = 64;
/** Behind it: id, flags, and the counts of questions, answers, authorities and additions. */
const FLAGS = UDP_HEADER + 16;
const QUESTIONS = UDP_HEADER + 32;
const ANSWERS_AND_AUTHORITIES = UDP_HEADER + 48;
const NAME = UDP_HEADER + 96;
/** A, AAAA, HTTPS. */
const TYPES = "{ 1, 28, 65 }";
/** Bytes of headers and of the type and class of the question, and what an extension may take. */
const OTHER_BYTES = 8 + 12 + 4;
/** What one expression can compare. */
const PIECE_BYTES = 16;

/** Matches a question for this name over UDP, however its letters are written. */
export function questionMatch(name: string): string {
  const bytes = encodeName(name);
  const pieces: string[] = [];
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    const piece = bytes.subarray(at, at + PIECE_BYTES);
    const mask = piece.map((byte, index) => (isLetter(byte) && !isLength(bytes, at + index) ? 0xdf : 0xff));
    const wanted = piece.map((byte, index) => byte & (mask[index] ?? 0));
    pieces.push(`@th,${NAME + at * 8},${piece.length * 8} & 0x${hex(mask)} == 0x${hex(wanted)}`);
  }
  const end = NAME + bytes.length * 8;
  return [
    "meta l4proto udp",
    `udp length <= ${OTHER_BYTES + bytes.length + networkLimits.questionExtensionBytes}`,
    // A question, not an answer; of the standard kind.
    `@th,${FLAGS},16 & 0xf800 == 0`,
    `@th,${QUESTIONS},16 1`,
    `@th,${ANSWERS_AND_AUTHORITIES},32 0`,
    ...pieces,
    `@th,${end},16 ${TYPES}`,
  ].join(" ");
}

/** Labels with their lengths before them, and an empty one at the end. */
function encodeName(name: string): Buffer {
  const labels = name.replace(/\.$/, "").split(".");
  return Buffer.concat([
    ...labels.map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label, "latin1")])),
    Buffer.of(0),
  ]);
}

function isLength(bytes: Buffer, at: number): boolean {
  let next = 0;
  while (next < at) next += (bytes[next] ?? 0) + 1;
  return next === at;
}

function isLetter(byte: number): boolean {
  return (byte >= 0x41 && byte <= 0x5a) || (byte >= 0x61 && byte <= 0x7a);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
