/**
 * Frames of ttrpc: a header of ten bytes, big-endian, and the data. Only unary calls are spoken, so a frame is a request or a
 * response and has no flags.
 *
 *     data length u32 | stream id u32 | type u8 | flags u8 | data
 *
 * Invariants: a decoder holds at most one frame of at most `linkLimits.frameMaxBytes`, whatever it is fed and in whatever
 * pieces; after its first error it stays broken, since nobody can say any more where a frame begins.
 */
import { BelljarError } from "../base/errors.ts";
import { linkLimits } from "../base/limits.ts";

export const FRAME_HEADER_BYTES = 10;

export const REQUEST = 1;
export const RESPONSE = 2;
export type FrameType = typeof REQUEST | typeof RESPONSE;

/** Stream ids are odd for calls that the client makes, and stay below 2^31. */
export const STREAM_ID_MAX = 0x7fff_ffff;

/** A length that no frame can have: the guest sends a header with it when it has thrown the connection away. */
const RESET_LENGTH = 0xffff_ffff;

export interface Frame {
  readonly type: FrameType;
  readonly streamId: number;
  readonly data: Uint8Array;
}

export interface OutgoingFrame {
  readonly type: FrameType;
  readonly streamId: number;
  /** The data, in pieces that follow one another. */
  readonly parts: readonly Uint8Array[];
}

/**
 * @param take where the buffer comes from, of exactly the size asked for
 * @throws BelljarError `INVALID_ARGUMENT` when the data is more than a frame can carry.
 */
export function encodeFrame(frame: OutgoingFrame, take: (size: number) => Buffer = Buffer.allocUnsafe): Buffer {
  const length = frame.parts.reduce((sum, part) => sum + part.length, 0);
  if (length > linkLimits.frameMaxBytes) {
    throw new BelljarError(
      "INVALID_ARGUMENT",
      `a message of ${length} bytes is larger than the ${linkLimits.frameMaxBytes} that a frame can carry`,
    );
  }
  const bytes = take(FRAME_HEADER_BYTES + length);
  writeHeader(bytes, length, frame.streamId, frame.type);
  let position = FRAME_HEADER_BYTES;
  for (const part of frame.parts) {
    bytes.set(part, position);
    position += part.length;
  }
  return bytes;
}

/** What the guest sends in place of a frame when it has thrown the connection away and waits for a new one. */
export function encodeReset(): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES);
  bytes.writeUInt32BE(RESET_LENGTH, 0);
  return bytes;
}

function writeHeader(bytes: Buffer, length: number, streamId: number, type: FrameType): void {
  bytes.writeUInt32BE(length, 0);
  bytes.writeUInt32BE(streamId, 4);
  bytes.writeUInt8(type, 8);
  bytes.writeUInt8(0, 9);
}

export class FrameDecoder {
  readonly #expected: FrameType;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #streamId = 0;
  /** The data of the frame under way, once its header is complete. */
  #data: Buffer | undefined;
  #dataBytes = 0;
  #broken: BelljarError | undefined;

  /** `expected` is what the other side sends: requests come from the host, responses from the guest. */
  constructor(expected: FrameType) {
    this.#expected = expected;
  }

  /**
   * Takes the next bytes, which may be reused afterwards, and returns the frames that they complete.
   * @throws BelljarError `AGENT_PROTOCOL`; `AGENT_DISCONNECTED` when the other side says that it has reset the connection
   */
  push(chunk: Uint8Array): Frame[] {
    if (this.#broken !== undefined) throw this.#broken;
    const frames: Frame[] = [];
    let position = 0;
    while (position < chunk.length) {
      if (this.#data === undefined) {
        const count = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, chunk.length - position);
        this.#header.set(chunk.subarray(position, position + count), this.#headerBytes);
        this.#headerBytes += count;
        position += count;
        if (this.#headerBytes === FRAME_HEADER_BYTES) this.#startFrame();
      }
      const data = this.#data;
      if (data === undefined) break;
      const count = Math.min(data.length - this.#dataBytes, chunk.length - position);
      data.set(chunk.subarray(position, position + count), this.#dataBytes);
      this.#dataBytes += count;
      position += count;
      if (this.#dataBytes === data.length) {
        frames.push({ type: this.#expected, streamId: this.#streamId, data });
        this.#data = undefined;
        this.#headerBytes = 0;
      }
    }
    return frames;
  }

  #startFrame(): void {
    const length = this.#header.readUInt32BE(0);
    const streamId = this.#header.readUInt32BE(4);
    const type = this.#header.readUInt8(8);
    const flags = this.#header.readUInt8(9);
    if (length === RESET_LENGTH) throw this.#break("AGENT_DISCONNECTED", "the other side has reset the link");
    if (length > linkLimits.frameMaxBytes) throw this.#break("AGENT_PROTOCOL", `a frame says it has ${length} bytes`);
    if (type !== this.#expected) throw this.#break("AGENT_PROTOCOL", `a frame has the type ${type}`);
    if (flags !== 0) throw this.#break("AGENT_PROTOCOL", `a frame has the flags ${flags}`);
    if (streamId % 2 !== 1 || streamId > STREAM_ID_MAX) {
      throw this.#break("AGENT_PROTOCOL", `a frame has the stream id ${streamId}`);
    }
    this.#streamId = streamId;
    this.#data = Buffer.allocUnsafe(length);
    this.#dataBytes = 0;
  }

  #break(reason: "AGENT_PROTOCOL" | "AGENT_DISCONNECTED", message: string): BelljarError {
    this.#broken = new BelljarError(reason, message);
    return this.#broken;
  }
}
