import assert from "node:assert/strict";
import { test } from "node:test";
import { identityRecord } from "./identity.ts";

test("a record carries the time to the microsecond, and other bytes for other entropy", () => {
  const record = identityRecord(Buffer.from("a"), 1_700_000_000_123.25);
  assert.equal(record.length, 88);
  assert.equal(record.readBigInt64LE(0), 1_700_000_000n);
  assert.equal(record.readBigInt64LE(8), 123_250_000n);
  assert.equal(record.readInt32LE(16), 512);
  assert.equal(record.readInt32LE(20), 64);
  const other = identityRecord(Buffer.from("b"), undefined);
  assert.notDeepEqual(record.subarray(24), other.subarray(24));
  assert.deepEqual(other.subarray(0, 16), Buffer.alloc(16));
});
