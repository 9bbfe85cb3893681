import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { BelljarError } from "../base/index.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

test("storage: sizes and kinds are kept, and what cannot be is refused before anything is made", async (t) => {
  const world = await MemoryRuntime.open(t);
  const { sandboxes } = world.core;
  for (const storageBytes of [0, -1, 1.5, MIB, 2 ** 50]) {
    await assert.rejects(sandboxes.create({ image: "busybox", storageBytes }), { reason: "INVALID_ARGUMENT" });
  }
  assert.deepEqual(await sandboxes.list(), []);
  const usual = await sandboxes.create({ image: "busybox", name: "usual" });
  assert.deepEqual((await usual.main.info()).storage, { kind: "disk", sizeBytes: 10 * GIB });
  const odd = await sandboxes.create({ image: "busybox", name: "odd", storageBytes: 100 * MIB + 1 });
  assert.deepEqual((await odd.main.info()).storage, { kind: "disk", sizeBytes: 101 * MIB });
  const memory = await sandboxes.create({ image: "busybox", name: "memory", storage: "tmpfs", memoryMib: 512 });
  assert.deepEqual((await memory.main.info()).storage, { kind: "tmpfs", sizeBytes: 256 * MIB });
  const disks = world.hypervisor.vms.get(memory.id)?.disks.map(({ serial }) => serial.slice(0, 2));
  assert.ok(!disks?.includes("w-"), "no disk of its own");
});

test("storage: grows in a guest, and later in one that has none; never shrinks", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox", storageBytes: 100 * MIB });
  const { main } = sandbox;
  const size = (): number | undefined => [...(world.hypervisor.vms.get(sandbox.id)?.diskSizes.values() ?? [])][0];
  await main.growStorage(200 * MIB);
  assert.deepEqual((await main.info()).storage, { kind: "disk", sizeBytes: 200 * MIB });
  assert.equal(size(), 200 * MIB);
  assert.equal(world.guests.guest(sandbox.id).storageSizes.get(main.id), 200 * MIB);
  await main.growStorage(200 * MIB);
  await assert.rejects(main.growStorage(150 * MIB), { reason: "INVALID_ARGUMENT" });
  await sandbox.pause();
  await assert.rejects(main.growStorage(GIB), { reason: "INVALID_TRANSITION" });
  await sandbox.resume();
  await sandbox.stop();
  await main.growStorage(GIB);
  const growing = { kind: "disk", sizeBytes: 200 * MIB, growingToBytes: GIB };
  assert.deepEqual((await main.info()).storage, growing);
  await sandbox.start();
  assert.deepEqual((await main.info()).storage, { kind: "disk", sizeBytes: GIB });
  assert.equal(size(), GIB);
});

test("storage: room that was about to be made is made by whoever comes next", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox", name: "box", storageBytes: 100 * MIB });
  const lost = new BelljarError("AGENT_FAILED", "resize2fs failed");
  world.guests.fault("growStorage", { kind: "fail", error: lost });
  await assert.rejects(sandbox.main.growStorage(200 * MIB));
  const growing = { kind: "disk", sizeBytes: 100 * MIB, growingToBytes: 200 * MIB };
  assert.deepEqual((await sandbox.main.info()).storage, growing, "it is known how far it got");
  await assert.rejects(sandbox.main.growStorage(150 * MIB), { reason: "INVALID_ARGUMENT" });
  await world.reopen();
  const again = await world.core.sandboxes.get("box");
  assert.deepEqual((await again.main.info()).storage, { kind: "disk", sizeBytes: 200 * MIB });
  assert.equal((await again.main.info()).state, "running");
});
