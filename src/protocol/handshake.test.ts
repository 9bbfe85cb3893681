/** Connections are told apart whatever an old one left behind and wherever the bytes are cut. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { linkLimits } from "../base/index.ts";
import { confusesScanner, EchoScanner, encodeEcho, encodeHello, HelloScanner } from "./handshake.ts";
import { decodeRequest, encodeRequest, encodeResponse } from "./ttrpc-envelope.ts";
import { FrameDecoder, REQUEST } from "./ttrpc-frame.ts";

const oldLine = { nonce: "f".repeat(32), version: 1 };
const newLine = { nonce: "0123456789abcdef".repeat(2), version: 1 };
const request = (byte: number, length: number): Buffer =>
  encodeRequest(1, { service: "s", method: "m", payload: Buffer.alloc(length, byte) });

/** Runs pieces through the guest's end; answers the nonce of the last connection and the payloads that came on it. */
function guestSees(pieces: readonly Buffer[]): { nonce: string | undefined; payloads: string[]; old: string[] } {
  const scanner = new HelloScanner();
  let nonce: string | undefined;
  let decoder = new FrameDecoder(REQUEST);
  const seen = new Map<string | undefined, string[]>();
  const reused = Buffer.alloc(4096);
  for (const piece of pieces) {
    piece.copy(reused);
    for (const event of scanner.push(reused.subarray(0, piece.length))) {
      if (event.kind === "hello") {
        nonce = event.line.nonce;
        decoder = new FrameDecoder(REQUEST);
        continue;
      }
      for (const frame of decoder.push(event.bytes)) {
        const payload = Buffer.from(decodeRequest(frame).payload).toString("latin1");
        seen.set(nonce, [...(seen.get(nonce) ?? []), payload]);
      }
    }
    reused.fill(0xff);
  }
  return { nonce, payloads: seen.get(newLine.nonce) ?? [], old: seen.get(oldLine.nonce) ?? [] };
}

test("a new connection is found behind every beginning of an old one, however the bytes are cut", () => {
  const old = Buffer.concat([encodeHello(oldLine), request(0x61, 3), request(0x62, 40)]);
  const fresh = Buffer.concat([encodeHello(newLine), request(0x63, 5)]);
  for (let kept = 0; kept <= old.length; kept += 1) {
    const stream = Buffer.concat([old.subarray(0, kept), fresh]);
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const { nonce, payloads, old: stale } = guestSees([stream.subarray(0, cut), stream.subarray(cut)]);
      assert.equal(nonce, newLine.nonce, `kept ${kept}, cut ${cut}`);
      assert.deepEqual(payloads, ["ccccc"], `kept ${kept}, cut ${cut}`);
      // What the old connection did send may have been served; half a frame completed by the hello never.
      for (const payload of stale) assert.match(payload, /^(aaa|b{40})$/, `kept ${kept}, cut ${cut}`);
    }
  }
});

test("the same one byte at a time", () => {
  const old = Buffer.concat([encodeHello(oldLine), request(0x61, 20)]);
  const fresh = Buffer.concat([encodeHello(newLine), request(0x63, 5)]);
  for (let kept = 0; kept <= old.length; kept += 1) {
    const stream = Buffer.concat([old.subarray(0, kept), fresh]);
    const { nonce, payloads } = guestSees(Array.from(stream, (byte) => Buffer.of(byte)));
    assert.equal(nonce, newLine.nonce);
    assert.deepEqual(payloads, ["ccccc"]);
  }
});

test("half a hello, a broken one, and garbage are passed over", () => {
  const hello = encodeHello(newLine);
  const broken = Buffer.from(hello);
  broken[20] = 0x7a;
  for (const before of [hello.subarray(0, 30), broken, Buffer.alloc(300, 0xff), Buffer.from("belljar-link:")]) {
    const { nonce, payloads } = guestSees([before, hello, request(0x63, 5)]);
    assert.equal(nonce, newLine.nonce);
    assert.deepEqual(payloads, ["ccccc"]);
  }
  assert.equal(guestSees([broken, request(0x61, 3)]).nonce, undefined);
});

test("after a reset nothing counts until the next hello", () => {
  const scanner = new HelloScanner();
  scanner.push(encodeHello(oldLine));
  scanner.reset();
  assert.deepEqual(scanner.push(request(0x61, 3)), []);
  assert.deepEqual(scanner.push(encodeHello(newLine)), [{ kind: "hello", line: newLine }]);
});

test("a payload that looks like a hello is masked on the wire and arrives as it was", () => {
  const marker = encodeHello(newLine).subarray(0, 14);
  const payloads = [
    encodeHello(oldLine),
    Buffer.concat([Buffer.alloc(100, 1), marker, Buffer.alloc(100, 2)]),
    ...Array.from({ length: 13 }, (_, index) => marker.subarray(0, index + 1)),
  ];
  for (const payload of payloads) {
    for (const timeoutMs of [undefined, 30_000]) {
      const frame = encodeRequest(1, { service: "s", method: "m", payload, timeoutMs });
      assert.equal(confusesScanner(frame), false);
      const [decoded] = new FrameDecoder(REQUEST).push(frame);
      assert.ok(decoded);
      assert.deepEqual(Buffer.from(decodeRequest(decoded).payload), payload);
      assert.equal(decodeRequest(decoded).timeoutMs, timeoutMs);
    }
  }
});

test("a complete frame is never held back", () => {
  for (const payload of [Buffer.of(0xff), Buffer.of(0xff, 0x62), Buffer.alloc(5, 0xff)]) {
    const frame = encodeRequest(1, { service: "s", method: "m", payload });
    const scanner = new HelloScanner();
    scanner.push(encodeHello(newLine));
    const bytes = scanner.push(frame).map((event) => (event.kind === "bytes" ? event.bytes : Buffer.alloc(0)));
    assert.deepEqual(Buffer.concat(bytes), frame);
  }
});

test("the host finds its echo behind every beginning of old output, however the bytes are cut", () => {
  const old = Buffer.concat([encodeEcho(oldLine), encodeResponse(1, Buffer.from("stale")), encodeEcho(oldLine)]);
  const behind = encodeResponse(1, Buffer.from("fresh"));
  const fresh = Buffer.concat([encodeEcho(newLine), behind]);
  for (let kept = 0; kept <= old.length; kept += 1) {
    const stream = Buffer.concat([old.subarray(0, kept), fresh]);
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const scanner = new EchoScanner(newLine.nonce);
      let result = scanner.push(stream.subarray(0, cut));
      let rest: Buffer = stream.subarray(cut);
      if (result.kind === "echo") rest = Buffer.concat([result.rest, rest]);
      else {
        result = scanner.push(rest);
        assert.equal(result.kind, "echo", `kept ${kept}, cut ${cut}`);
        rest = result.kind === "echo" ? result.rest : Buffer.alloc(0);
      }
      assert.deepEqual(rest, behind, `kept ${kept}, cut ${cut}`);
    }
  }
});

test("an echo of another nonce is none, and old bytes have an end", () => {
  const scanner = new EchoScanner(newLine.nonce);
  assert.equal(scanner.push(encodeEcho(oldLine)).kind, "waiting");
  const block = Buffer.alloc(1024 * 1024, 0x61);
  for (let skipped = 0; skipped + block.length < linkLimits.nonceSkipMaxBytes; skipped += block.length) {
    assert.equal(scanner.push(block).kind, "waiting");
  }
  assert.equal(scanner.push(block).kind, "flooded");
});
