import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { open, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { zstdCompressSync } from "node:zlib";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { systemDisk } from "../store/index.ts";
import { exportNamed, importNamed } from "./checkpoint-archives.ts";
import type { SandboxHandle } from "./interface.ts";

async function running(t: TestScope): Promise<{ runtime: MemoryRuntime; source: SandboxHandle; dir: string }> {
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk });
  const source = await runtime.core.sandboxes.create({ image: "busybox", name: "source" });
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  return { runtime, source, dir: join(runtime.deps.rootDir, "checkpoints") };
}

test("packed: a checkpoint takes less room, and comes back as it was", async (t) => {
  const { runtime, source } = await running(t);
  const plain = await source.checkpoint({ name: "plain" });
  const packed = await source.checkpoint({ name: "packed", compress: true });
  assert.deepEqual([plain.compression, packed.compression], [undefined, "zstd"]);
  assert.ok(packed.pagesBytes > 0 && packed.pagesBytes < plain.pagesBytes / 10, String(packed.pagesBytes));
  await runtime.core.checkpoints.verify("packed");
  await runtime.reopen();
  const copy = await runtime.core.checkpoints.restore("packed");
  assert.deepEqual(runtime.memory.loaded, [2]);
  assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  assert.deepEqual(
    (await readdir(join(runtime.sandboxesDir, copy.id))).filter((name) => name.includes("pages")),
    [],
  );
  const again = await runtime.core.sandboxes.get("source");
  await again.rewind({ checkpoint: "packed" });
  await assert.rejects(again.checkpoint({ asTemplate: true, compress: true }), { reason: "INVALID_ARGUMENT" });
});

test("packed: an archive is smaller, and is taken in as any other", async (t) => {
  const { runtime, source, dir } = await running(t);
  const { id } = await source.checkpoint({ name: "travels" });
  const [plain, packed] = [join(t.dir, "plain.tar"), join(t.dir, "packed.tar.zst")];
  await exportNamed(runtime.deps.rootDir, id, plain);
  await exportNamed(runtime.deps.rootDir, id, packed, { compress: true });
  assert.ok((await stat(packed)).size < (await stat(plain)).size / 2);
  await runtime.core.checkpoints.remove(id);
  await importNamed(runtime.deps.rootDir, packed);
  await runtime.core.checkpoints.restore("travels");
  await runtime.core.checkpoints.remove(id);
  const bytes = await readFile(packed);
  for (const [what, bad] of [
    ["cut short", bytes.subarray(0, bytes.length / 2)],
    ["changed", Buffer.concat([bytes.subarray(0, 400), randomBytes(64), bytes.subarray(464)])],
    ["no archive inside", zstdCompressSync(Buffer.from("no tar at all"))],
  ] as const) {
    await writeFile(packed, bad);
    await assert.rejects(importNamed(runtime.deps.rootDir, packed), { reason: "CHECKPOINT_CORRUPT" }, what);
    assert.deepEqual(
      (await readdir(dir)).filter((name) => !name.endsWith(".lock")),
      [],
    );
  }
});

test("packed: what is damaged is refused before anything starts", async (t) => {
  const { runtime, source, dir } = await running(t);
  const { id } = await source.checkpoint({ name: "packed", compress: true });
  const path = join(dir, id, "pages.img");
  const file = await open(path, "r+");
  await file.write(Buffer.of(0xff), 0, 1, 12);
  await file.close();
  await assert.rejects(runtime.core.checkpoints.restore("packed"), {
    message: /packed.* pages\.img|pages\.img is not/,
  });
  assert.equal((await runtime.core.sandboxes.list()).length, 1);
});
