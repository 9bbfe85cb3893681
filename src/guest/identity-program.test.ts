import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { identityProgram } from "./identity-program.ts";

async function run(t: TestScope, input: Uint8Array): Promise<number | string | null> {
  const path = join(await tempDir(t), "identity");
  await writeFile(path, identityProgram("x64"));
  await chmod(path, 0o755);
  const child = spawn(path, [], { stdio: ["pipe", "ignore", "ignore"] });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => resolve(status ?? signal));
  });
}

test("a whole record is taken by the kernel, anything else changes nothing", async (t) => {
  // No time: the clock of this host is left alone.
  const record = Buffer.alloc(88, 0x5a);
  record.fill(0, 0, 16);
  record.writeInt32LE(512, 16);
  record.writeInt32LE(64, 20);
  assert.equal(await run(t, record.subarray(0, 87)), 1);
  assert.equal(await run(t, Buffer.alloc(0)), 1);
  // Only root may count bytes as entropy.
  assert.equal(await run(t, record), process.getuid?.() === 0 ? 0 : 1);
});

test("another architecture is refused", async () => {
  assert.throws(() => identityProgram("arm64"), { reason: "UNSUPPORTED_HOST" });
});
