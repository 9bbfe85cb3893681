import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { identityProgram } from "./identity-program.ts";

/** What it wrote, and how it ended. */
async function run(t: TestScope, ...input: Uint8Array[]): Promise<{ bytes: number; status: number | string | null }> {
  const path = join(await tempDir(t), "identity");
  await writeFile(path, identityProgram("x64"));
  await chmod(path, 0o755);
  const child = spawn(path, [], { stdio: ["pipe", "pipe", "ignore"] });
  child.stdin.on("error", () => {});
  let bytes = 0;
  child.stdout.on("data", (data: Buffer) => {
    bytes += data.length;
    send();
  });
  const pieces = [...input];
  const send = (): void => {
    const piece = pieces.shift();
    if (piece === undefined) child.stdin.end();
    else child.stdin.write(piece);
  };
  send();
  if (pieces.length === 0 && input[0]?.length !== 88) child.stdin.end();
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, signal) => resolve({ bytes, status: status ?? signal }));
  });
}

test("whole records are taken by the kernel, one after the other; anything else changes nothing", async (t) => {
  // No time: the clock of this host is left alone.
  const record = Buffer.alloc(88, 0x5a);
  record.fill(0, 0, 16);
  record.writeInt32LE(512, 16);
  record.writeInt32LE(64, 20);
  assert.deepEqual(await run(t, record.subarray(0, 87)), { bytes: 0, status: 1 });
  assert.deepEqual(await run(t), { bytes: 0, status: 1 });
  // Only root may count bytes as entropy.
  const taken = process.getuid?.() === 0 ? 3 : 0;
  assert.deepEqual(await run(t, record, record, record), { bytes: taken, status: 1 });
});

test("another architecture is refused", async () => {
  assert.throws(() => identityProgram("arm64"), { reason: "UNSUPPORTED_HOST" });
});
