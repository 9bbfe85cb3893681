import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "../test/support/random.ts";
import { OutputRing } from "./ring.ts";

/** All that is there from an offset on, in as many readings as it takes. */
function readAll(ring: OutputRing, offset: number, maxBytes: number): { offset: number; data: Buffer } {
  const first = ring.read(offset, maxBytes);
  const pieces = [first.data];
  let rest = maxBytes - first.data.length;
  for (let at = first.offset + first.data.length; at < ring.end && rest > 0; ) {
    const { data } = ring.read(at, rest);
    pieces.push(data);
    at += data.length;
    rest -= data.length;
  }
  return { offset: first.offset, data: Buffer.concat(pieces) };
}

test("it keeps the last bytes under their offsets", () => {
  const ring = new OutputRing(4);
  assert.deepEqual(readAll(ring, 0, 10), { offset: 0, data: Buffer.alloc(0) });
  ring.write(Buffer.from("abc"));
  ring.write(Buffer.from("def"));
  assert.deepEqual(readAll(ring, 0, 10), { offset: 2, data: Buffer.from("cdef") });
  assert.deepEqual(readAll(ring, 3, 2), { offset: 3, data: Buffer.from("de") });
  ring.acknowledge(5);
  assert.equal(ring.room, 3);
  assert.deepEqual(readAll(ring, 0, 10), { offset: 5, data: Buffer.from("f") });
  ring.write(Buffer.from("0123456789"));
  assert.deepEqual(readAll(ring, 0, 10), { offset: 12, data: Buffer.from("6789") });
  ring.acknowledge(1_000);
  assert.deepEqual([ring.start, ring.end], [16, 16]);
});

test("it agrees with a plain string whatever is written, read and acknowledged", () => {
  const random = seededRandom(7);
  for (let round = 0; round < 200; round += 1) {
    const capacity = 1 + random.below(20);
    const ring = new OutputRing(capacity);
    let all = "";
    let start = 0;
    for (let step = 0; step < 40; step += 1) {
      const piece = Array.from({ length: random.below(30) }, () => String.fromCharCode(97 + random.below(26))).join("");
      ring.write(Buffer.from(piece));
      all += piece;
      start = Math.max(start, all.length - capacity);
      if (random.below(3) === 0) {
        const acknowledged = random.below(all.length + 1);
        ring.acknowledge(acknowledged);
        start = Math.max(start, acknowledged);
      }
      const offset = random.below(all.length + 1);
      const max = random.below(30);
      const from = Math.max(offset, start);
      const { offset: found, data } = readAll(ring, offset, max);
      assert.deepEqual([found, data.toString()], [from, all.slice(from, from + max)]);
      assert.equal(ring.room, capacity - (all.length - start));
    }
  }
});
