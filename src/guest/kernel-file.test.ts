import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../../test/support/harness.ts";
import { BelljarError, runTool } from "../base/index.ts";
import { kernelPayload, writeKernel } from "./kernel-file.ts";

/** A bzImage around a payload; two setup sectors. */
function bzImage(payload: Buffer, claimedBytes = payload.length): Buffer {
  const setup = Buffer.alloc(3 * 512);
  setup[0x1f1] = 2;
  setup.write("HdrS", 0x202, "latin1");
  setup.writeUInt32LE(16, 0x248);
  setup.writeUInt32LE(claimedBytes, 0x24c);
  return Buffer.concat([setup, Buffer.alloc(16, 9), payload, Buffer.from("what follows")]);
}

function withSize(data: Buffer, sizeBytes: number): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(sizeBytes);
  return Buffer.concat([data, size]);
}

const refused = (pattern: RegExp) => (error: unknown) =>
  error instanceof BelljarError && error.reason === "GUEST_BUILD_FAILED" && pattern.test(error.message);

test("the kernel comes out of its compressed form as it went in", async (t) => {
  const dir = await tempDir(t);
  const kernel = Buffer.from("\x7fELF and a kernel ".repeat(10_000));
  const { stdout } = await runTool("lz4", ["-l", "-c"], { input: kernel });
  await writeFile(join(dir, "vmlinuz"), bzImage(withSize(stdout, kernel.length)));
  await writeKernel(join(dir, "vmlinuz"), join(dir, "kernel"));
  assert.ok((await readFile(join(dir, "kernel"))).equals(kernel));
  assert.deepEqual((await readdir(dir)).sort(), ["kernel", "vmlinuz"]);

  await writeFile(join(dir, "vmlinuz"), bzImage(withSize(stdout, kernel.length + 1)));
  await assert.rejects(writeKernel(join(dir, "vmlinuz"), join(dir, "other")), refused(/and not the \d+ it is said/));
  assert.deepEqual((await readdir(dir)).sort(), ["kernel", "vmlinuz"]);
});

test("what is no bzImage with an lz4 payload inside it is refused by name", async () => {
  const lz4 = Buffer.from([0x02, 0x21, 0x4c, 0x18, 1, 2, 3, 4, 0, 0, 0, 0]);
  for (const [image, pattern] of [
    [Buffer.from("\x7fELF"), /the kernel k .*not a bzImage/],
    [Buffer.alloc(4096), /not a bzImage/],
    [bzImage(lz4, 1_000_000), /outside of it/],
    [bzImage(lz4, 0), /outside of it/],
    [bzImage(Buffer.from("gzip or so, with its size")), /not compressed with lz4/],
  ] as const) {
    assert.throws(() => kernelPayload(image, "k"), refused(pattern));
  }
});
