import assert from "node:assert/strict";
import { mkdir, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { tempDir, test } from "../../test/support/harness.ts";
import { systemDisk } from "../store/index.ts";
import { CheckpointStore } from "./checkpoint-store.ts";

test("sweep: what a killed maker has left goes, but not the archive that another process works on", async (t) => {
  const dir = await tempDir(t);
  const store = new CheckpointStore(dir, systemDisk);
  const draft = ".belljar-tmp-0123456789ab";
  const killed = ".belljar-tmp-archive-killed";
  for (const name of [draft, killed]) await mkdir(join(dir, name));
  {
    await using used = await new CheckpointStore(dir, systemDisk).temporary();
    assert.deepEqual(await store.sweep(), [draft]);
    assert.deepEqual((await readdir(dir)).sort(), [killed, basename(used.dir), "archives.lock"].sort());
  }
  assert.deepEqual(await store.sweep(), [killed]);
  assert.deepEqual(await readdir(dir), ["archives.lock"]);
  // Whoever comes next finds the lock free.
  await using _next = await store.temporary();
});
