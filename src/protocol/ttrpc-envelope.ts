/**
 * The envelope of ttrpc: which method a request calls, what status a response has. Turns calls into frames and frames into
 * calls; a message that cannot be decoded is an `AGENT_PROTOCOL` error, never another one.
 *
 * One addition to ttrpc, which other servers ignore and need not know: when a frame would look like a hello to the guest
 * (see handshake.ts), its payload is combined by exclusive-or with eight random bytes that stand in the metadata.
 */
import { randomBytes } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BelljarError } from "../base/errors.ts";
import {
  type TtrpcRequest,
  TtrpcRequestSchema,
  type TtrpcResponse,
  TtrpcResponseSchema,
} from "./generated/belljar/agent/v1/ttrpc_pb.js";
import { confusesScanner } from "./handshake.ts";
import { encodeFrame, type Frame, REQUEST, RESPONSE } from "./ttrpc-frame.ts";
import { encodeStatus } from "./ttrpc-status.ts";

const MASK_KEY = "belljar-mask";
const MASK_BYTES = 8;
/** Each try fails with a chance of about 2^-64, unless the payload was made for the mask, which nobody can foresee. */
const MASK_TRIES = 8;
const NANOSECONDS_PER_MS = 1_000_000n;

export interface Request {
  readonly service: string;
  readonly method: string;
  readonly payload: Uint8Array;
  /** How long the caller waits for the answer. */
  readonly timeoutMs?: number | undefined;
}

/** @throws BelljarError `INVALID_ARGUMENT` when the payload is larger than a frame. */
export function encodeRequest(streamId: number, request: Request): Buffer {
  const envelope = create(TtrpcRequestSchema, {
    service: request.service,
    method: request.method,
    payload: request.payload,
    timeoutNano: BigInt(Math.ceil(request.timeoutMs ?? 0)) * NANOSECONDS_PER_MS,
  });
  const frame = encodeFrame({ type: REQUEST, streamId, parts: [toBinary(TtrpcRequestSchema, envelope)] });
  return confusesScanner(frame) ? encodeMasked(streamId, envelope) : frame;
}

function encodeMasked(streamId: number, envelope: TtrpcRequest): Buffer {
  for (let attempt = 0; attempt < MASK_TRIES; attempt += 1) {
    const mask = randomBytes(MASK_BYTES);
    const masked = create(TtrpcRequestSchema, {
      service: envelope.service,
      method: envelope.method,
      payload: combine(envelope.payload, mask),
      timeoutNano: envelope.timeoutNano,
      metadata: [{ key: MASK_KEY, value: mask.toString("hex") }],
    });
    const frame = encodeFrame({ type: REQUEST, streamId, parts: [toBinary(TtrpcRequestSchema, masked)] });
    if (!confusesScanner(frame)) return frame;
  }
  throw new BelljarError("INTERNAL", `no mask hides the link's marker in a call of ${envelope.method}`);
}

function combine(payload: Uint8Array, mask: Uint8Array): Uint8Array {
  return payload.map((byte, index) => byte ^ (mask[index % MASK_BYTES] ?? 0));
}

/** @throws BelljarError `AGENT_PROTOCOL` */
export function decodeRequest(frame: Frame): Request {
  const envelope = decodeEnvelope("request", () => fromBinary(TtrpcRequestSchema, frame.data));
  const mask = envelope.metadata.find((entry) => entry.key === MASK_KEY)?.value;
  if (mask !== undefined && !/^[0-9a-f]{16}$/.test(mask)) {
    throw new BelljarError("AGENT_PROTOCOL", "a request has a mask that is not eight bytes in hexadecimal");
  }
  const timeoutMs = Number(envelope.timeoutNano / NANOSECONDS_PER_MS);
  return {
    service: envelope.service,
    method: envelope.method,
    payload: mask === undefined ? envelope.payload : combine(envelope.payload, Buffer.from(mask, "hex")),
    timeoutMs: timeoutMs > 0 ? timeoutMs : undefined,
  };
}

/** Field 2 of the response, `payload`: its number and kind, before its length. */
const PAYLOAD_FIELD = 2;

/** A field of bytes that is added to an encoded message: protobuf takes the fields of a message in any order. */
export interface BulkField {
  readonly field: number;
  readonly data: Uint8Array;
}

/**
 * Puts header, envelope and payload into one buffer at once: bulk data passes here, and every copy, and even more every new large
 * buffer, counts in an emulated guest.
 * @param take where the buffer comes from
 * @throws BelljarError `INVALID_ARGUMENT` when the payload is larger than a frame.
 */
export function encodeResponse(
  streamId: number,
  message: Uint8Array,
  bulk?: BulkField,
  take?: (size: number) => Buffer,
): Buffer {
  const parts = bulk === undefined ? [message] : [message, bytesField(bulk.field, bulk.data.length), bulk.data];
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  if (length > 0) parts.unshift(bytesField(PAYLOAD_FIELD, length));
  return encodeFrame({ type: RESPONSE, streamId, parts }, take);
}

/** What stands before the data of a field of bytes. */
function bytesField(field: number, length: number): Uint8Array {
  const bytes = [(field << 3) | 2];
  let rest = length;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

export function encodeErrorResponse(streamId: number, error: BelljarError): Buffer {
  const envelope = create(TtrpcResponseSchema, { status: encodeStatus(error) });
  return encodeFrame({ type: RESPONSE, streamId, parts: [toBinary(TtrpcResponseSchema, envelope)] });
}

/** @throws BelljarError `AGENT_PROTOCOL` */
export function decodeResponse(frame: Frame): TtrpcResponse {
  return decodeEnvelope("response", () => fromBinary(TtrpcResponseSchema, frame.data));
}

/** Runs a decoder of the protobuf library, whose every error means that the other side sent something malformed. */
export function decodeEnvelope<T>(what: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw new BelljarError("AGENT_PROTOCOL", `a ${what} cannot be decoded`, { cause: error });
  }
}
