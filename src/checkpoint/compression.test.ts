import assert from "node:assert/strict";
import { rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { isPacked, packFile, unpackFile } from "./compression.ts";

test("packed: more than there should be, and what is given up, leaves nothing", async (t) => {
  const [from, to] = [join(t.dir, "from"), join(t.dir, "to")];
  await writeFile(from, Buffer.alloc(1_000_000));
  await packFile(from, to);
  await rm(from);
  await assert.rejects(unpackFile(to, from, 999_999), {
    reason: "CHECKPOINT_CORRUPT",
    message: /more than 999999 bytes/,
  });
  await assert.rejects(stat(from), { code: "ENOENT" });
  await unpackFile(to, from, 1_000_000);
  assert.equal((await stat(from)).size, 1_000_000);
  await assert.rejects(packFile(from, join(t.dir, "never"), AbortSignal.abort()), { name: "AbortError" });
  await assert.rejects(stat(join(t.dir, "never")), { code: "ENOENT" });
  assert.deepEqual([await isPacked(to), await isPacked(from), await isPacked(t.dir)], [true, false, false]);
});
