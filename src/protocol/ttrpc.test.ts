/** The codec against bytes written by hand, every way to cut a stream, and everything that breaks the protocol. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { BelljarError, decodeField, linkLimits } from "../base/index.ts";
import { encodeEcho, encodeHello } from "./handshake.ts";
import { decodeRequest, decodeResponse, encodeErrorResponse, encodeRequest, encodeResponse } from "./ttrpc-envelope.ts";
import { encodeFrame, encodeReset, type Frame, FrameDecoder, REQUEST, RESPONSE } from "./ttrpc-frame.ts";
import { cleanMessage, decodeStatus } from "./ttrpc-status.ts";

const text = await readFile(new URL("golden/frames.json", import.meta.url), "utf8");
const golden = decodeField(JSON.parse(text), "frames.json", "INTERNAL");

function bytesOf(...path: string[]): Buffer {
  const field = path.reduce((from, name) => from.field(name), golden);
  return Buffer.from(field.string().replaceAll(" ", ""), "hex");
}

function onlyFrame(type: typeof REQUEST | typeof RESPONSE, bytes: Buffer): Frame {
  const [frame, ...more] = new FrameDecoder(type).push(bytes);
  assert.ok(frame);
  assert.equal(more.length, 0);
  return frame;
}

test("a request is what ttrpc says, both ways", () => {
  const expected = golden.field("request");
  const request = {
    service: expected.field("service").string(),
    method: expected.field("method").string(),
    payload: bytesOf("request", "payloadHex"),
    timeoutMs: expected.field("timeoutMs").integer(),
  };
  const frame = bytesOf("request", "frameHex");
  assert.equal(encodeRequest(1, request).toString("hex"), frame.toString("hex"));
  const decoded = decodeRequest(onlyFrame(REQUEST, frame));
  assert.deepEqual({ ...decoded, payload: Buffer.from(decoded.payload) }, request);
});

test("a response is what ttrpc says, both ways", () => {
  const payload = bytesOf("response", "payloadHex");
  const frame = bytesOf("response", "frameHex");
  assert.equal(encodeResponse(1, payload).toString("hex"), frame.toString("hex"));
  const decoded = decodeResponse(onlyFrame(RESPONSE, frame));
  assert.equal(decoded.status, undefined);
  assert.deepEqual(Buffer.from(decoded.payload), payload);
});

test("an error response carries code, message and reason, both ways", () => {
  const frame = bytesOf("errorResponse", "frameHex");
  const error = new BelljarError("PROCESS_NOT_FOUND", "gone");
  assert.equal(encodeErrorResponse(259, error).toString("hex"), frame.toString("hex"));
  const decoded = decodeStatus(decodeResponse(onlyFrame(RESPONSE, frame)).status);
  assert.equal(decoded?.reason, "PROCESS_NOT_FOUND");
  assert.equal(decoded?.message, "gone");
});

test("reset, hello and echo are the bytes that were agreed on", () => {
  const line = { nonce: golden.field("hello").field("nonce").string(), version: 1 };
  assert.deepEqual(encodeReset(), bytesOf("reset", "frameHex"));
  assert.deepEqual(encodeHello(line), bytesOf("hello", "lineHex"));
  assert.deepEqual(encodeEcho(line), bytesOf("echo", "lineHex"));
});

test("frames come out whole however the bytes are cut", () => {
  const frames = [0, 1, 9, 300].map((length, index) =>
    encodeFrame({ type: RESPONSE, streamId: 2 * index + 1, parts: [Buffer.alloc(length, index + 1)] }),
  );
  const stream = Buffer.concat(frames);
  for (let first = 0; first <= stream.length; first += 1) {
    const decoder = new FrameDecoder(RESPONSE);
    // One buffer for all pieces: the decoder must not keep what it was given.
    const reused = Buffer.alloc(stream.length);
    const found = [stream.subarray(0, first), stream.subarray(first)].flatMap((piece) => {
      reused.fill(0xee);
      piece.copy(reused);
      return decoder.push(reused.subarray(0, piece.length));
    });
    assert.deepEqual(
      found.map((frame) => [
        frame.streamId,
        frame.data.length,
        frame.data.every((byte) => byte === (frame.streamId + 1) / 2),
      ]),
      [
        [1, 0, true],
        [3, 1, true],
        [5, 9, true],
        [7, 300, true],
      ],
    );
  }
});

function header(length: number, streamId: number, type: number, flags: number): Buffer {
  const bytes = Buffer.alloc(10);
  bytes.writeUInt32BE(length, 0);
  bytes.writeUInt32BE(streamId, 4);
  bytes[8] = type;
  bytes[9] = flags;
  return bytes;
}

test("what is no frame is refused as soon as its header is there, and for ever", () => {
  const bad: [string, Buffer, string][] = [
    ["too large", header(linkLimits.frameMaxBytes + 1, 1, RESPONSE, 0), "AGENT_PROTOCOL"],
    ["a request where responses come", header(0, 1, REQUEST, 0), "AGENT_PROTOCOL"],
    ["streaming data", header(0, 1, 3, 0), "AGENT_PROTOCOL"],
    ["type 0", header(0, 1, 0, 0), "AGENT_PROTOCOL"],
    ["flags", header(0, 1, RESPONSE, 1), "AGENT_PROTOCOL"],
    ["stream 0", header(0, 0, RESPONSE, 0), "AGENT_PROTOCOL"],
    ["an even stream", header(0, 2, RESPONSE, 0), "AGENT_PROTOCOL"],
    ["a stream above 2^31", header(0, 0x8000_0001, RESPONSE, 0), "AGENT_PROTOCOL"],
    ["a reset", encodeReset(), "AGENT_DISCONNECTED"],
  ];
  for (const [what, bytes, reason] of bad) {
    const decoder = new FrameDecoder(RESPONSE);
    assert.deepEqual(decoder.push(bytes.subarray(0, 9)), [], what);
    assert.throws(() => decoder.push(bytes.subarray(9)), { reason }, what);
    assert.throws(() => decoder.push(header(0, 1, RESPONSE, 0)), { reason }, what);
  }
});

test("the largest frame passes, one byte more is refused by the sender", () => {
  const data = Buffer.alloc(linkLimits.frameMaxBytes);
  assert.equal(
    onlyFrame(RESPONSE, encodeFrame({ type: RESPONSE, streamId: 1, parts: [data] })).data.length,
    data.length,
  );
  assert.throws(() => encodeFrame({ type: RESPONSE, streamId: 1, parts: [Buffer.alloc(data.length + 1)] }), {
    reason: "INVALID_ARGUMENT",
  });
});

test("an envelope that is no protobuf is a protocol error", () => {
  const data = Buffer.from("0aff", "hex");
  assert.throws(() => decodeRequest({ type: REQUEST, streamId: 1, data }), { reason: "AGENT_PROTOCOL" });
  assert.throws(() => decodeResponse({ type: RESPONSE, streamId: 1, data }), { reason: "AGENT_PROTOCOL" });
});

test("of a guest's status nothing is believed but a reason that an agent may have", () => {
  const claim = (reason: string): string | undefined => {
    const frame = encodeErrorResponse(1, new BelljarError("AGENT_FAILED", "x"));
    // The same length, so that the lengths around it stay right.
    const forged = Buffer.from(frame.toString("latin1").replace("AGENT_FAILED", reason.padEnd(12)), "latin1");
    return decodeStatus(decodeResponse(onlyFrame(RESPONSE, forged)).status)?.reason;
  };
  assert.equal(claim("AGENT_FAILED"), "AGENT_FAILED");
  assert.equal(claim("NO_SUCH_THNG"), "AGENT_FAILED");
  assert.equal(claim("VMM_PROTOCOL"), "AGENT_FAILED");
  assert.equal(claim("__proto__"), "AGENT_FAILED");
});

test("a guest's words are one short line without anything that a terminal obeys", () => {
  assert.equal(cleanMessage("a\u001b[31mb\r\nc\u0000\u009bd\u202ee\u2028f"), "a [31mb c d e f");
  assert.equal(cleanMessage("x".repeat(5000)).length, linkLimits.messageMaxLength + 3);
  assert.equal(cleanMessage("\ud800"), "\ufffd");
});
