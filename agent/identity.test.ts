import assert from "node:assert/strict";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../test/support/harness.ts";
import { IdentityProgram, identityRecord } from "./identity.ts";

const TAKE = "dd bs=88 count=1 of=/dev/null 2>/dev/null; printf x";
const REFUSE = "dd bs=88 count=1 of=/dev/null 2>/dev/null; exit 3";
const identity = { entropy: Buffer.from("a"), realtimeMs: () => undefined };

test("a record carries the time to the microsecond, and other bytes for other entropy", async () => {
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

test("one program takes record after record; when it has refused one, another is started", async (t) => {
  const dir = await tempDir(t);
  const path = join(dir, "program");
  await writeFile(path, `#!/bin/sh\necho started >> ${dir}/starts\n${TAKE}\n${TAKE}\n${REFUSE}\n`);
  await chmod(path, 0o755);
  const program = new IdentityProgram(path);
  for (const starts of ["started\n", "started\nstarted\n"]) {
    await Promise.all([program.apply(identity), program.apply(identity)]);
    await assert.rejects(program.apply(identity), { reason: "AGENT_FAILED", message: /ended with status 3/ });
    assert.equal(await readFile(`${dir}/starts`, "utf8"), starts);
  }
});

test("a program that is not there is told", async () => {
  await assert.rejects(new IdentityProgram("/nonexistent").apply(identity), { message: /cannot be run/ });
});
