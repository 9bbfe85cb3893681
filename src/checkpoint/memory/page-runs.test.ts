import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { seededRandom } from "../../../test/support/random.ts";
import { BelljarError } from "../../base/index.ts";
import { type BlockPages, countPages, decodePages, encodePages, PAGE_BYTES } from "./page-runs.ts";

const ram: BlockPages = { name: "ram", sizeBytes: 64 * PAGE_BYTES, runs: Uint32Array.of(0, 3, 7, 1, 60, 4) };
const growth: BlockPages = { name: "growth", sizeBytes: 16 * PAGE_BYTES, runs: Uint32Array.of(15, 1) };
const DIGEST_BYTES = 32;

/** As somebody would write it who knows how the digest is made. */
function sealed(body: Buffer): Buffer {
  return Buffer.concat([body, createHash("sha256").update(body).digest()]);
}

test("a list of pages is read as it was written", () => {
  for (const blocks of [[], [ram], [ram, growth], [{ ...ram, runs: new Uint32Array(0) }]]) {
    assert.deepEqual(decodePages(encodePages(blocks), "list"), blocks);
  }
  assert.equal(countPages([ram, growth]), 9);
});

test("a list of pages that was changed or cut short anywhere is refused", () => {
  const list = encodePages([ram, growth]);
  for (let at = 0; at < list.length; at += 1) {
    const changed = Buffer.from(list);
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
    assert.throws(() => decodePages(changed, "list"), /^BelljarError|damaged|version/);
    assert.throws(() => decodePages(list.subarray(0, at), "list"), { reason: "CHECKPOINT_CORRUPT" });
  }
  assert.throws(() => decodePages(Buffer.concat([list, list]), "list"), { reason: "CHECKPOINT_CORRUPT" });
});

test("a hostile list of pages, with the right digest, names no page that is not the guest's", () => {
  const body = encodePages([ram, growth]).subarray(0, -DIGEST_BYTES);
  const random = seededRandom(5);
  let refused = 0;
  for (let round = 0; round < 20_000; round += 1) {
    const changed = Buffer.from(body);
    for (let changes = 1 + random.below(3); changes > 0; changes -= 1) {
      const at = random.below(changed.length / 4) * 4;
      changed.writeUInt32LE(random.pick([0, 1, 2, 64, 0xff, 0x7fff_ffff, 0xffff_ffff, random.below(2 ** 32)]), at);
    }
    const length = random.below(10) === 0 ? random.below(changed.length) : changed.length;
    try {
      for (const { sizeBytes, runs } of decodePages(sealed(changed.subarray(0, length)), "list")) {
        let end = 0;
        for (let at = 0; at < runs.length; at += 2) {
          assert.ok((runs[at] ?? 0) >= end && (runs[at + 1] ?? 0) > 0);
          end = (runs[at] ?? 0) + (runs[at + 1] ?? 0);
        }
        assert.ok(end * PAGE_BYTES <= sizeBytes);
      }
    } catch (error) {
      if (!(error instanceof BelljarError)) throw error;
      assert.match(error.reason, /^CHECKPOINT_(CORRUPT|MISMATCH)$/);
      refused += 1;
    }
  }
  assert.ok(refused > 10_000, String(refused));
});
