/**
 * The form of every state file: one header line, then the body as indented JSON, so that it can be read with `less`.
 *
 *   belljar-state 1 kind=sandbox version=3 sequence=17 length=1234 sha256=<64 hex digits>
 *   { ...body, 1234 bytes with its last newline... }
 *
 * Invariants: the checksum is the last field of the header and covers every byte before it and the body, in this and all
 * later formats. It is checked before anything else is believed, so a flipped bit in a version number is corruption
 * (STATE_CORRUPT), and STATE_VERSION is said only of an intact file. The body is decoded last, if at all. The same value
 * always gives the same bytes.
 */
import { createHash } from "node:crypto";
import { BelljarError, storeLimits } from "../base/index.ts";
import { canonicalJson } from "./canonical-json.ts";

/** Version of the envelope itself; the version of what is inside belongs to its kind. */
const FORMAT = 1;
const NEWLINE = 0x0a;
const CHECKSUM_FIELD = / sha256=([0-9a-f]{64})$/;
const HEADER =
  /^belljar-state 1 kind=([a-z][a-z0-9-]{0,31}) version=([1-9]\d{0,8}) sequence=(0|[1-9]\d{0,15}) length=(\d{1,9})$/;

export interface EnvelopeHeader {
  /** What the body describes: `sandbox`, `container`, ... */
  readonly kind: string;
  /** Version of the body's form, from 1. */
  readonly version: number;
  /** Grows by at least one with each write of the file. */
  readonly sequence: number;
}

export interface Envelope extends EnvelopeHeader {
  /** JSON text, intact but not yet parsed. */
  readonly body: string;
}

/** @throws BelljarError `INTERNAL` for a value that JSON cannot carry without loss. */
export function encodeEnvelope(header: EnvelopeHeader, value: unknown): Uint8Array {
  const body = Buffer.from(`${canonicalJson(value, header.kind)}\n`, "utf8");
  const { kind, version, sequence } = header;
  const line = `belljar-state ${FORMAT} kind=${kind} version=${version} sequence=${sequence} length=${body.length}`;
  if (!HEADER.test(line)) {
    throw new BelljarError("INTERNAL", `the header ${JSON.stringify(line)} of a state file is malformed`);
  }
  return Buffer.concat([Buffer.from(`${line} sha256=${checksum(line, body)}\n`, "latin1"), body]);
}

/**
 * @param name what errors call the file, usually its path
 * @throws BelljarError `STATE_CORRUPT`, or `STATE_VERSION` for an intact file in a newer format
 */
export function decodeEnvelope(bytes: Uint8Array, name: string): Envelope {
  if (bytes.length === 0) throw corrupt(name, "it is empty");
  const end = bytes.subarray(0, storeLimits.headerMaxBytes).indexOf(NEWLINE);
  if (end === -1) throw corrupt(name, "it has no header line");
  const header = Buffer.from(bytes.subarray(0, end)).toString("latin1");
  const body = bytes.subarray(end + 1);

  const expected = CHECKSUM_FIELD.exec(header)?.[1];
  if (expected === undefined) throw corrupt(name, "its header has no checksum");
  const line = header.slice(0, -" sha256=".length - expected.length);
  if (checksum(line, body) !== expected) throw corrupt(name, "its checksum does not match its content");

  const format = /^belljar-state ([1-9]\d{0,8}) /.exec(line)?.[1];
  if (format !== undefined && Number(format) > FORMAT) throw newerVersion(name, "file format", Number(format), FORMAT);
  const [, kind, version, sequence, length] = HEADER.exec(line) ?? [];
  if (kind === undefined) throw corrupt(name, "its header is malformed");
  if (Number(length) !== body.length) throw corrupt(name, `it has ${body.length} bytes of content, not ${length}`);
  if (!Number.isSafeInteger(Number(sequence))) throw corrupt(name, `its sequence number ${sequence} is out of range`);
  return { kind, version: Number(version), sequence: Number(sequence), body: decodeText(body, name) };
}

export function newerVersion(name: string, what: string, found: number, known: number): BelljarError {
  return new BelljarError(
    "STATE_VERSION",
    `${name} has version ${found} of its ${what}; this Belljar knows up to ${known}`,
    { facts: { file: name, found, known } },
  );
}

export function corrupt(name: string, problem: string, cause?: unknown): BelljarError {
  return new BelljarError("STATE_CORRUPT", `${name} is damaged: ${problem}`, { facts: { file: name }, cause });
}

function checksum(line: string, body: Uint8Array): string {
  return createHash("sha256").update(line, "latin1").update("\n").update(body).digest("hex");
}

function decodeText(body: Uint8Array, name: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch (error) {
    throw corrupt(name, "its content is not UTF-8", error);
  }
}
