import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeWake } from "../../test/support/wake-message.ts";
import { decodeWakeAnswer, encodeWake, type WakeStep } from "./wake.ts";

const entropy = Buffer.alloc(64, 7);

/** As long as it says. */
function request(bytes: number): Buffer {
  const message = Buffer.alloc(bytes, 9);
  message.writeUInt32LE(bytes, 0);
  return message;
}

test("a wake message is what its reader finds: steps in their order, texts of every length, the time to the nanosecond", () => {
  const steps: WakeStep[] = [
    { kind: "write", path: "/a", text: "" },
    { kind: "write", path: `/${"p".repeat(110)}`, text: "ä".repeat(4) },
    { kind: "kill", pid: 4_194_304 },
    { kind: "network", requests: [request(16), request(44)], mayBeGone: true },
    { kind: "network", requests: [request(20)], mayBeGone: false },
    { kind: "disconnect", address: "10.0.2.15", keepInside: true },
    { kind: "disconnect", address: "2001:db8:0:0:0:0:0:9", keepInside: false },
    { kind: "write", path: "/thaw", text: "0" },
  ];
  const message = encodeWake({ entropy, clock: { advanceMs: 12_345.5 }, steps });
  assert.equal(message.length % 8, 0);
  assert.deepEqual(decodeWake(message), { entropy, clock: { advanceMs: 12_345.5 }, steps });
  const clock = { realtimeMs: 1_700_000_000_123.25 };
  assert.deepEqual(decodeWake(encodeWake({ entropy, clock, steps: [] })), { entropy, clock, steps: [] });
  for (const none of [undefined, { advanceMs: -1 }]) {
    assert.equal(decodeWake(encodeWake({ entropy, clock: none, steps: [] })).clock, undefined);
  }
});

test("what the guest's program would not take is not sent", () => {
  const message =
    (step: WakeStep, bytes = entropy) =>
    () =>
      encodeWake({ entropy: bytes, steps: [step] });
  assert.throws(message({ kind: "write", path: `/${"p".repeat(111)}`, text: "" }), { reason: "INVALID_ARGUMENT" });
  assert.throws(message({ kind: "write", path: "/a\0b", text: "" }), { reason: "INVALID_ARGUMENT" });
  assert.throws(message({ kind: "write", path: "/a", text: "x".repeat(65_536) }), { reason: "INVALID_ARGUMENT" });
  assert.throws(message({ kind: "kill", pid: 1 }, Buffer.alloc(63)), { reason: "INVALID_ARGUMENT" });
});

test("an answer is two numbers, or none", () => {
  assert.deepEqual(decodeWakeAnswer(Buffer.from([2, 0, 0, 0, 5, 0, 0, 0])), { errno: 2, steps: 5 });
  assert.throws(() => decodeWakeAnswer(Buffer.alloc(7)), { reason: "AGENT_FAILED" });
});
