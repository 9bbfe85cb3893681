import assert from "node:assert/strict";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../test/support/harness.ts";
import { decodeWake } from "../test/support/wake-message.ts";
import { IdentityProgram, identityMessage } from "./identity.ts";

const TAKE = "dd bs=96 count=1 of=/dev/null 2>/dev/null; head -c 8 /dev/zero";
const FAIL = "dd bs=96 count=1 of=/dev/null 2>/dev/null; printf '\\001\\0\\0\\0\\0\\0\\0\\0'";
const REFUSE = "dd bs=96 count=1 of=/dev/null 2>/dev/null; exit 3";
const identity = { entropy: Buffer.from("a"), realtimeMs: () => undefined };

test("a message carries other bytes for other entropy, and the time when it is known", async () => {
  const one = decodeWake(identityMessage(Buffer.from("a"), 1_700_000_000_123.25));
  assert.deepEqual([one.clock, one.steps], [{ realtimeMs: 1_700_000_000_123.25 }, []]);
  const other = decodeWake(identityMessage(Buffer.from("b"), undefined));
  assert.equal(other.clock, undefined);
  assert.notDeepEqual(one.entropy, other.entropy);
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

test("what the kernel refuses is told", async (t) => {
  const path = join(await tempDir(t), "program");
  await writeFile(path, `#!/bin/sh\n${FAIL}\n${TAKE}\n`);
  await chmod(path, 0o755);
  const program = new IdentityProgram(path);
  await assert.rejects(program.apply(identity), { message: /errno 1/ });
  await program.apply(identity);
});

test("a program that is not there is told", async () => {
  await assert.rejects(new IdentityProgram("/nonexistent").apply(identity), { message: /cannot be run/ });
});
