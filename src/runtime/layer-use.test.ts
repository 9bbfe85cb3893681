import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { readLayerUse } from "./layer-use.ts";

const LAYER = `${"2".repeat(64)}.erofs`;

test("layer use: of sandboxes that run, that are stopped, and of those that cannot be read", async (t) => {
  const world = await MemoryRuntime.open(t);
  const { rootDir, disk } = world.deps;
  const use = (): ReturnType<typeof readLayerUse> => readLayerUse(rootDir, disk);
  assert.deepEqual(await use(), { containers: [], unreadable: [] });
  const running = await world.core.sandboxes.create({ image: "busybox", name: "running" });
  const stopped = await world.core.sandboxes.create({ image: "busybox", name: "stopped" });
  await stopped.stop();
  const containers = [
    { sandbox: "running", layerFiles: [LAYER] },
    { sandbox: "stopped", layerFiles: [LAYER] },
  ];
  const found = await use();
  assert.deepEqual(
    [...found.containers].sort((a, b) => a.sandbox.localeCompare(b.sandbox)),
    containers,
  );
  assert.deepEqual(found.unreadable, []);

  const path = join(world.sandboxesDir, running.id, "sandbox.json");
  const before = await disk?.read(path, 1_000_000);
  assert.ok(disk !== undefined && before !== undefined);
  const write = async (data: Uint8Array): Promise<void> => {
    await disk.unlink(path);
    await (await disk.create(path, 0o600)).write(data);
  };
  const text = Buffer.from(before).toString("latin1");
  for (const damaged of ["", text.slice(0, 100), text.replace("version=2", "version=99")]) {
    await write(Buffer.from(damaged, "latin1"));
    assert.deepEqual(await use(), { containers: [containers[1]], unreadable: [running.id] });
  }
  await write(before);
  await mkdir(join(world.sandboxesDir, "lost+found"));
  assert.equal((await use()).containers.length, 2);
  await stopped.delete();
  assert.equal((await use()).containers.length, 1);
});
