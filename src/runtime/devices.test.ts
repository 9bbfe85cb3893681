import assert from "node:assert/strict";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";

test("a disk that is gone when its sandbox starts again is named; with it back, or without it, the sandbox starts", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox", name: "box" });
  const path = join(t.dir, "disk");
  await writeFile(path, Buffer.alloc(1024));
  const { id } = await sandbox.devices.add({ kind: "block", path });
  // A running VM has it open.
  await rm(path);
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  await sandbox.stop();
  await assert.rejects(sandbox.start(), { reason: "DEVICE_NOT_FOUND", message: new RegExp(path) });
  assert.equal((await sandbox.info()).state, "stopped");
  assert.equal(world.hypervisor.live.length, 0);
  const added = async (): Promise<string[]> =>
    (await sandbox.devices.list()).flatMap((device) => (device.isContainers ? [] : [device.id]));
  assert.deepEqual(await added(), [id]);
  await writeFile(path, Buffer.alloc(512));
  await sandbox.start();
  assert.ok(world.hypervisor.vms.get(sandbox.id)?.disks.some(({ serial }) => serial === id));
  await sandbox.stop();
  await rm(path);
  await assert.rejects(sandbox.start(), { reason: "DEVICE_NOT_FOUND" });
  await sandbox.devices.remove(id);
  assert.deepEqual(await added(), []);
  await world.reopen();
  const again = await world.core.sandboxes.get("box");
  await again.start();
  assert.equal((await again.exec(["echo", "on"])).stdout, "on\n");
});
