import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decodeJournal, encodeJournal, encodeRecord, type JournalEntry } from "./journal-format.ts";

const entries: readonly JournalEntry[] = [
  { id: 1, operation: "create", facts: { container: "web" }, steps: [{ step: "disk", facts: { node: "d1" } }] },
  { id: 2, operation: "exec", facts: {}, steps: [] },
];
const whole = encodeJournal(entries);
const join = (...parts: readonly Uint8Array[]): Uint8Array => Buffer.concat(parts);
const spoiled = (bytes: Uint8Array, at: number): Uint8Array => {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
};

describe("journal format", () => {
  it("comes back as it went", () => {
    assert.deepEqual(decodeJournal(whole, "j"), { unfinished: entries, lastId: 2, torn: false });
  });

  it("drops a last line cut anywhere, and nothing before it", () => {
    const last = encodeRecord({ begin: 3, operation: "stop", facts: {} });
    for (let length = 1; length < last.length; length += 1) {
      const { unfinished, torn } = decodeJournal(join(whole, last.slice(0, length)), "j");
      assert.deepEqual({ unfinished, torn }, { unfinished: entries, torn: true });
    }
    const zeros = decodeJournal(join(whole, Buffer.alloc(700)), "j");
    assert.deepEqual(zeros, { unfinished: entries, lastId: 2, torn: true });
    const bad = decodeJournal(join(whole, spoiled(last, 20)), "j");
    assert.deepEqual(bad, { unfinished: entries, lastId: 2, torn: true });
  });

  it("takes any damage before the last line for corruption", () => {
    const next = encodeRecord({ begin: 3, operation: "stop", facts: {} });
    for (let at = 0; at < whole.length; at += 1) {
      assert.throws(() => decodeJournal(join(spoiled(whole, at), next), "/s/journal"), {
        reason: "STATE_CORRUPT",
        message: /^\/s\/journal is damaged: /,
      });
    }
    // A torn line proves that the one before it was synced.
    assert.throws(() => decodeJournal(join(spoiled(whole, whole.length - 5), Buffer.from("x")), "j"), {
      reason: "STATE_CORRUPT",
    });
    for (const empty of ["", "\n", "x", "\0\0\0"]) {
      assert.throws(() => decodeJournal(Buffer.from(empty), "j"), { reason: "STATE_CORRUPT" }, JSON.stringify(empty));
    }
  });

  it("refuses intact records that make no sense", () => {
    for (const record of [
      encodeRecord({ end: 9 }),
      encodeRecord({ note: 9, step: "s", facts: {} }),
      encodeRecord({ begin: 1, operation: "again", facts: {} }),
      encodeRecord({ begin: 0, operation: "zero", facts: {} }),
    ]) {
      assert.throws(() => decodeJournal(join(whole, record), "j"), { reason: "STATE_CORRUPT" });
    }
  });
});
