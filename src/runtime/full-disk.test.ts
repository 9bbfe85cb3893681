/** A host's disk that is full under a whole runtime. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime, systemError } from "../../test/support/memory-runtime.ts";

interface FullDisk {
  readonly world: MemoryRuntime;
  /** How many files can still be written. */
  readonly room: { writes: number };
}

async function setUp(t: TestScope): Promise<FullDisk> {
  const world = await MemoryRuntime.open(t);
  const { disk } = world.deps;
  assert.ok(disk);
  const room = { writes: Number.POSITIVE_INFINITY };
  const create = disk.create.bind(disk);
  disk.create = async (path, mode) => {
    if (room.writes <= 0) throw systemError("ENOSPC", "no space left on device", path);
    room.writes -= 1;
    return await create(path, mode);
  };
  return { world, room };
}

test("full disk: whichever write of a creation meets it, the creation says so and leaves nothing", async (t) => {
  const { world, room } = await setUp(t);
  let failed = 0;
  for (;;) {
    room.writes = failed;
    const made = await world.core.sandboxes.create({ image: "busybox" }).catch((error: unknown) => {
      assert.equal(Reflect.get(Object(error), "reason"), "DISK_FULL");
    });
    room.writes = Number.POSITIVE_INFINITY;
    if (made !== undefined) {
      await made.delete({ force: true });
      break;
    }
    failed += 1;
    assert.deepEqual(world.hypervisor.live, []);
    assert.deepEqual(await readdir(world.sandboxesDir), []);
    assert.deepEqual(await world.core.sandboxes.list(), []);
  }
  assert.ok(failed > 5, `a creation has ${failed} writes`);
});

test("full disk: a sandbox that lives is not changed, runs on, and can be ended", async (t) => {
  const { world, room } = await setUp(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox" });
  const second = await sandbox.containers.create({ image: "busybox" });
  await second.start();
  room.writes = 0;
  const refused: readonly (() => Promise<unknown>)[] = [
    () => sandbox.pause(),
    () => sandbox.setAnnotations({ a: "1" }),
    () => sandbox.containers.create({ image: "busybox" }),
    () => sandbox.main.stop({ timeoutMs: 10 }),
    () => sandbox.stop({ timeoutMs: 10 }),
  ];
  for (const act of refused) {
    await assert.rejects(act(), { reason: "DISK_FULL" });
    const { state, annotations, containers } = await sandbox.info();
    assert.deepEqual(
      [state, annotations, containers.map((each) => each.state)],
      ["running", {}, ["running", "running"]],
    );
  }
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  await sandbox.main.stop({ timeoutMs: 1_000, force: true });
  assert.equal((await sandbox.main.info()).state, "stopped");

  const events = sandbox.watch();
  const ended = (async (): Promise<void> => {
    for await (const event of events) if (event.kind === "state" && event.state === "stopped") return;
  })();
  world.guests.guest(sandbox.id).vm.end({ cause: "died", detail: "the test" });
  await ended;
  assert.equal((await sandbox.info()).end?.reason, "VMM_DIED");
  room.writes = Number.POSITIVE_INFINITY;
  await sandbox.start();
  assert.equal((await sandbox.exec(["echo", "again"])).stdout, "again\n");
  await sandbox.delete({ force: true });
  assert.deepEqual(world.hypervisor.live, []);
  assert.deepEqual(await readdir(world.sandboxesDir), []);
});
