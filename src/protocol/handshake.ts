/**
 * How host and guest agree where a connection begins in a byte stream that has no beginning.
 *
 * The guest's port is one endless stream: bytes of a lost connection (half a frame, whole frames, a hello) come out before
 * those of the next one, in both directions, and the guest need not notice that the host went away in between. So:
 *
 * - The host opens a connection with a hello line: marker, random nonce, protocol version. The guest answers with an echo line
 *   that has the same nonce. Both throw away what comes before.
 * - Guest to host this is safe by the nonce: the host made it a moment ago, so nothing old can contain it.
 * - Host to guest the hello may land in what the guest takes for the data of a frame that was cut in half. The guest therefore
 *   looks for the marker everywhere, data included, and a host never sends a frame that contains it, or that ends in a
 *   beginning of it (`confusesScanner`; the envelope masks such a payload). Found, it is always a hello.
 *
 * The marker begins with a byte that it has nowhere else, and that neither the rest of a line nor a frame's header begins
 * with. It has no zero byte, with which every header begins. So no marker can arise where old bytes end and new ones begin.
 */
import { linkLimits } from "../base/limits.ts";

const HELLO_MARKER = Buffer.from("\u00ffbelljar-link:", "latin1");
const ECHO_MARKER = Buffer.from("\u00ffbelljar-echo:", "latin1");
const FIRST_BYTE = 0xff;

export const NONCE_LENGTH = 32;
/** Of either line: marker, nonce, space, version as eight hexadecimal digits, line feed. */
export const HANDSHAKE_LINE_BYTES = HELLO_MARKER.length + NONCE_LENGTH + 1 + 8 + 1;

export interface HandshakeLine {
  /** 128 random bits as hexadecimal digits. */
  readonly nonce: string;
  readonly version: number;
}

export function encodeHello(line: HandshakeLine): Buffer {
  return encodeLine(HELLO_MARKER, line);
}

export function encodeEcho(line: HandshakeLine): Buffer {
  return encodeLine(ECHO_MARKER, line);
}

function encodeLine(marker: Buffer, { nonce, version }: HandshakeLine): Buffer {
  return Buffer.concat([marker, Buffer.from(`${nonce} ${version.toString(16).padStart(8, "0")}\n`, "latin1")]);
}

/** Reads the line that starts at the beginning of `bytes`, marker included; undefined when it is not a valid line. */
function decodeLine(bytes: Buffer): HandshakeLine | undefined {
  const text = bytes.toString("latin1", HELLO_MARKER.length, HANDSHAKE_LINE_BYTES);
  const match = /^([0-9a-f]{32}) ([0-9a-f]{8})\n$/.exec(text);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { nonce: match[1], version: Number.parseInt(match[2], 16) };
}

/** True when a guest could take a part of this frame, or what follows it, for a hello. Such a frame must not be sent. */
export function confusesScanner(frame: Buffer): boolean {
  return frame.includes(HELLO_MARKER) || partialMarkerAtEnd(frame, HELLO_MARKER) > 0;
}

/** How many bytes at the end of `bytes` are a beginning of the marker, but not all of it. */
function partialMarkerAtEnd(bytes: Buffer, marker: Buffer): number {
  // The first byte stands nowhere else in the marker, so only its last occurrence can begin one that is still incomplete.
  const tail = bytes.subarray(Math.max(0, bytes.length - marker.length + 1));
  const start = tail.lastIndexOf(FIRST_BYTE);
  if (start === -1) return 0;
  const length = tail.length - start;
  return tail.subarray(start).equals(marker.subarray(0, length)) ? length : 0;
}

export type HelloEvent =
  /** Bytes of the connection that the last hello began; valid until the next `push`. */
  | { readonly kind: "bytes"; readonly bytes: Buffer }
  /** A new connection has begun; whatever was incomplete is void. */
  | { readonly kind: "hello"; readonly line: HandshakeLine };

/** The guest's end: splits what comes from the host into connections. Holds back less than one line. */
export class HelloScanner {
  #held: Buffer = Buffer.alloc(0);
  #connected = false;

  /** Nothing counts any more until the next hello: the host is gone, or has broken the protocol. */
  reset(): void {
    this.#connected = false;
  }

  push(chunk: Buffer): HelloEvent[] {
    const events: HelloEvent[] = [];
    let rest = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    this.#held = Buffer.alloc(0);
    while (rest.length > 0) {
      const start = rest.indexOf(HELLO_MARKER);
      if (start === -1) {
        const held = partialMarkerAtEnd(rest, HELLO_MARKER);
        // Copied, because the caller may reuse the chunk.
        this.#held = Buffer.from(rest.subarray(rest.length - held));
        const bytes = rest.subarray(0, rest.length - held);
        if (this.#connected && bytes.length > 0) events.push({ kind: "bytes", bytes });
        break;
      }
      // What stands before a marker belongs to a connection that the host has given up: nobody waits for its answers.
      this.#connected = false;
      events.length = 0;
      rest = rest.subarray(start);
      if (rest.length < HANDSHAKE_LINE_BYTES) {
        this.#held = Buffer.from(rest);
        break;
      }
      const line = decodeLine(rest);
      if (line === undefined) {
        rest = rest.subarray(1);
        continue;
      }
      this.#connected = true;
      events.push({ kind: "hello", line });
      rest = rest.subarray(HANDSHAKE_LINE_BYTES);
    }
    return events;
  }
}

export type EchoResult =
  | { readonly kind: "waiting" }
  /** More old bytes than any guest can have left behind. */
  | { readonly kind: "flooded" }
  /** `rest`: what follows the echo, the first bytes of the connection. */
  | { readonly kind: "echo"; readonly line: HandshakeLine; readonly rest: Buffer };

/** The host's end: throws away what comes before the echo of its nonce. */
export class EchoScanner {
  readonly #expected: Buffer;
  #held: Buffer = Buffer.alloc(0);
  #skippedBytes = 0;

  constructor(nonce: string) {
    this.#expected = Buffer.concat([ECHO_MARKER, Buffer.from(nonce, "latin1")]);
  }

  push(chunk: Buffer): EchoResult {
    let rest = Buffer.concat([this.#held, chunk]);
    for (;;) {
      const start = rest.indexOf(this.#expected);
      if (start === -1) {
        const heldBytes = partialMarkerAtEnd(rest, this.#expected);
        return this.#wait(rest, rest.length - heldBytes);
      }
      if (rest.length - start < HANDSHAKE_LINE_BYTES) return this.#wait(rest, start);
      const line = decodeLine(rest.subarray(start));
      if (line !== undefined) return { kind: "echo", line, rest: rest.subarray(start + HANDSHAKE_LINE_BYTES) };
      this.#skippedBytes += start + 1;
      rest = rest.subarray(start + 1);
    }
  }

  #wait(bytes: Buffer, skippedBytes: number): EchoResult {
    this.#skippedBytes += skippedBytes;
    this.#held = Buffer.from(bytes.subarray(skippedBytes));
    return this.#skippedBytes > linkLimits.nonceSkipMaxBytes ? { kind: "flooded" } : { kind: "waiting" };
  }
}
