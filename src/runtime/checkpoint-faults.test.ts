/** Disks that fail under checkpoint, restore and fork, at each of their operations: the source goes on, and nothing is there by half. */
import assert from "node:assert/strict";
import { readdir, rm, statfs, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime, systemError } from "../../test/support/memory-runtime.ts";
import { mountTmpfs } from "../../test/support/tmpfs.ts";
import { BelljarError } from "../base/index.ts";
import { type Disk, systemDisk, TEMPORARY_MARK } from "../store/index.ts";
import type { SandboxHandle } from "./interface.ts";

const LAYER = `${"2".repeat(64)}.erofs`;

interface World {
  readonly runtime: MemoryRuntime;
  readonly source: SandboxHandle;
}

interface Operation {
  readonly name: string;
  /** A checkpoint is there before. */
  readonly needsCheckpoint: boolean;
  readonly act: (world: World) => Promise<unknown>;
}

const operations: readonly Operation[] = [
  { name: "checkpoint", needsCheckpoint: false, act: ({ source }) => source.checkpoint({ name: "kept" }) },
  { name: "restore", needsCheckpoint: true, act: ({ runtime }) => runtime.core.checkpoints.restore("kept") },
  { name: "fork", needsCheckpoint: false, act: ({ source }) => source.fork(2) },
  { name: "remove", needsCheckpoint: true, act: ({ runtime }) => runtime.core.checkpoints.remove("kept") },
];

/** The source runs and can be used; what is listed is whole; what is on disk is listed; what runs is listed. */
async function assertWhole({ runtime, source }: World, what: string): Promise<void> {
  assert.equal((await source.info()).state, "running", what);
  const guest = runtime.guests.guest(source.id);
  assert.deepEqual([guest.frozen, runtime.hypervisor.vms.get(source.id)?.status], [false, "running"], what);
  assert.equal((await source.exec(["echo", "on"])).stdout, "on\n", what);
  const sandboxes = (await runtime.core.sandboxes.list()).map(({ id }) => id).sort();
  assert.deepEqual((await readdir(runtime.sandboxesDir)).sort(), sandboxes, what);
  assert.equal(runtime.hypervisor.live.length, sandboxes.length, what);
  const checkpoints = await runtime.core.checkpoints.list();
  const dir = join(runtime.deps.rootDir, "checkpoints");
  // One whose removal was begun and could not be made to last is nobody's: the next owner takes it away.
  const found = (await readdir(dir).catch(() => [])).filter((each) => !each.includes(TEMPORARY_MARK));
  assert.deepEqual(found.sort(), checkpoints.map(({ id }) => id).sort(), what);
  for (const { id } of checkpoints) await runtime.core.checkpoints.verify(id);
}

/** Back to the source alone, with a checkpoint or without. */
async function prepare({ runtime, source }: World, needsCheckpoint: boolean): Promise<void> {
  for (const { id } of await runtime.core.sandboxes.list()) {
    if (id !== source.id) await (await runtime.core.sandboxes.get(id)).delete({ force: true });
  }
  const checkpoints = await runtime.core.checkpoints.list();
  if (!needsCheckpoint) for (const { id } of checkpoints) await runtime.core.checkpoints.remove(id);
  else if (checkpoints.length === 0) await source.checkpoint({ name: "kept" });
}

async function open(t: TestScope, change: Parameters<typeof MemoryRuntime.open>[1]): Promise<World> {
  const runtime = await MemoryRuntime.open(t, change);
  const source = await runtime.core.sandboxes.create({ image: "busybox", name: "source" });
  await writeFile(join(dirname(runtime.deps.runDir), LAYER), "layer");
  return { runtime, source };
}

/** Fails an operation of the disk: the one with this number, or all from it on. A full disk fails what needs room. */
class FailingDisk {
  readonly disk: Disk;
  #left = Number.POSITIVE_INFINITY;
  #lasts = false;
  #error = "EIO";

  constructor() {
    const through =
      <A extends [string, ...unknown[]], R>(work: (...args: A) => Promise<R>, needsRoom = true) =>
      async (...args: A): Promise<R> => {
        if (needsRoom || this.#error !== "ENOSPC") this.#step(args[0]);
        return await work(...args);
      };
    this.disk = {
      ...systemDisk,
      create: through(async (path: string, mode: number) => {
        const file = await systemDisk.create(path, mode);
        return {
          write: through((_path: string, data: Uint8Array) => file.write(data)).bind(undefined, path),
          sync: through((_path: string) => file.sync()).bind(undefined, path),
          close: () => file.close(),
        };
      }),
      rename: through(systemDisk.rename, false),
      unlink: through(systemDisk.unlink, false),
      makeDirectory: through(systemDisk.makeDirectory),
      syncDirectory: through(systemDisk.syncDirectory, false),
    };
  }

  fail(after: number, error: "EIO" | "ENOSPC", lasts: boolean): void {
    this.#left = after;
    this.#error = error;
    this.#lasts = lasts;
  }

  /** Answers whether it had been reached. */
  heal(): boolean {
    const reached = this.#left < 0;
    this.#left = Number.POSITIVE_INFINITY;
    return reached;
  }

  #step(path: string): void {
    this.#left -= 1;
    if (this.#left === -1 || (this.#lasts && this.#left < 0)) {
      throw systemError(this.#error, this.#error === "EIO" ? "i/o error" : "no space left on device", path);
    }
  }
}

for (const { name, needsCheckpoint, act } of operations) {
  for (const [error, lasts] of [["EIO", false] as const, ["ENOSPC", true] as const]) {
    // Needs no room.
    if (name === "remove" && error === "ENOSPC") continue;
    test(`${name}: ${error} at every operation of the disk${lasts ? " and all that follow" : ""}`, async (t) => {
      const failing = new FailingDisk();
      const world = await open(t, { disk: failing.disk });
      let points = 0;
      for (; ; points += 1) {
        await prepare(world, needsCheckpoint);
        failing.fail(points, error, lasts);
        const failure = await act(world).then(
          () => undefined,
          (cause: unknown) => cause,
        );
        const isReached = failing.heal();
        const what = `${name}, ${error} at ${points}: ${String(failure)}`;
        if (failure !== undefined) assert.match(BelljarError.from(failure).reason, /^DISK_/, what);
        await assertWhole(world, what);
        if (failure !== undefined && !needsCheckpoint)
          assert.deepEqual(await world.runtime.core.checkpoints.list(), []);
        if (!isReached) break;
      }
      t.diagnostic(`${points} points`);
      assert.ok(points >= 2);
      // The next owner finds the same.
      await world.runtime.reopen();
      const source = await world.runtime.core.sandboxes.get("source");
      await assertWhole({ ...world, source }, "the next owner");
      const left = await readdir(join(world.runtime.deps.rootDir, "checkpoints")).catch(() => []);
      assert.deepEqual(
        left.filter((each) => each.includes(TEMPORARY_MARK)),
        [],
      );
    });
  }
}

const BLOCK_BYTES = 4096;

test("a file system that is full, at every block: no operation does harm", async (t) => {
  if (process.getuid?.() !== 0) {
    t.diagnostic("only root can mount one");
    return;
  }
  const small = await mountTmpfs(t, 4);
  const world = await open(t, { disk: systemDisk, rootDir: join(small, "root") });
  const ballast = join(small, "ballast");
  for (const { name, needsCheckpoint, act } of operations) {
    let blocks = 0;
    for (; ; blocks += 1) {
      await prepare(world, needsCheckpoint);
      const { bavail } = await statfs(small);
      await writeFile(ballast, Buffer.alloc(Math.max(0, bavail - blocks) * BLOCK_BYTES));
      const failure = await act(world).then(
        () => undefined,
        (cause: unknown) => cause,
      );
      await rm(ballast);
      const what = `${name}, ${blocks} blocks free: ${String(failure)}`;
      if (failure !== undefined) assert.equal(BelljarError.from(failure).reason, "DISK_FULL", what);
      await assertWhole(world, what);
      if (failure === undefined) break;
    }
    t.diagnostic(`${name}: ${blocks} blocks`);
  }
});
