import assert from "node:assert/strict";
import { readdir, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import type { SandboxHandle } from "../runtime/index.ts";
import { Spares } from "./index.ts";

interface World {
  readonly runtime: MemoryRuntime;
  readonly source: SandboxHandle;
  /** Ids of those that wait. */
  waiting(): readonly string[];
}

async function open(t: TestScope, size: number, mode?: "bridge"): Promise<World> {
  const runtime = await MemoryRuntime.open(t);
  const { hypervisor, runDir, clock: slow, log } = runtime.deps;
  const clock = { ...slow, sleep: async () => {} };
  const { networks, cgroups } = runtime;
  const checkpointsDir = join(runtime.deps.rootDir, "checkpoints");
  const availableMemoryMib = async (): Promise<number> => 16_384;
  const room = { hypervisor, networks, cgroups, runDir, clock, log, size, availableMemoryMib };
  const spares = new Spares({ ...room, checkpointsDir });
  Object.assign(runtime.deps, { spares });
  await runtime.reopen();
  const source = await runtime.core.sandboxes.create({
    image: "busybox",
    ...(mode === undefined ? {} : { network: { mode } }),
  });
  // The image's only layer.
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  return {
    runtime,
    source,
    waiting: () => [...runtime.hypervisor.waiting.keys()],
  };
}

test("after the first copy the next ones take VMMs that wait, and others take their place", async (t) => {
  const world = await open(t, 2);
  assert.deepEqual(world.waiting(), []);
  await world.source.fork(1);
  await until(() => world.waiting().length === 2);
  for (const waited of world.waiting()) {
    const [fork] = await world.source.fork(1);
    assert.equal(fork?.id, waited);
    assert.equal((await fork.exec(["echo", "on"])).stdout, "on\n");
  }
  await until(() => world.waiting().length === 2);
  const { id } = await world.source.checkpoint();
  const [next] = world.waiting();
  const restored = await world.runtime.core.checkpoints.restore(id);
  assert.equal(restored.id, next);
  await world.runtime.core.release();
  assert.deepEqual(world.waiting(), []);
  assert.equal((await readdir(world.runtime.deps.runDir)).length, world.runtime.hypervisor.live.length);
});

test("many forks at once take spares that have mapped a file of their own, which is theirs then", async (t) => {
  const world = await open(t, 3);
  const checkpoints = join(world.runtime.deps.rootDir, "checkpoints");
  const mapped = (): readonly string[] =>
    [...world.runtime.hypervisor.waiting.values()].map(({ memoryPath }) => memoryPath ?? "");
  await world.source.fork(2);
  await until(() => world.waiting().length === 3);
  const [canvas = "", ...others] = new Set(mapped());
  assert.deepEqual([dirname(dirname(canvas)), others], [checkpoints, []]);
  // Nothing was put into it: one copy has no use for it, nor have more of them than wait.
  const waited = world.waiting();
  for (const count of [1, 4]) {
    for (const fork of await world.source.fork(count)) assert.equal(waited.includes(fork.id), false);
  }
  const forks = await world.source.fork(2);
  assert.deepEqual(
    forks.map(({ id }) => waited.includes(id)),
    [true, true],
  );
  for (const fork of forks) assert.equal((await fork.exec(["echo", "on"])).stdout, "on\n");
  // One was too many; the next ones have another file.
  await until(() => mapped().filter((path) => path !== canvas && dirname(dirname(path)) === checkpoints).length === 3);
  assert.equal(mapped().includes(canvas), false);
  assert.equal((await readdir(checkpoints)).includes(basename(dirname(canvas))), false);
  await world.runtime.core.release();
  assert.deepEqual([world.waiting(), await readdir(checkpoints)], [[], []]);
});

test("the networks of many forks are begun before their source stands still, and given back when it cannot", async (t) => {
  const world = await open(t, 3, "bridge");
  const { networks, hypervisor } = world.runtime;
  await world.source.fork(2);
  await until(() => world.waiting().length === 3);
  const waited = world.waiting();
  const letGo = hypervisor.hold("pause");
  const forking = world.source.fork(2);
  await until(() => networks.ahead.length === 2);
  assert.equal(
    networks.ahead.every((id) => waited.includes(id)),
    true,
  );
  letGo();
  const forks = await forking;
  assert.deepEqual(new Set(forks.map(({ id }) => id)), new Set(networks.ahead));
  await until(() => world.waiting().filter((id) => !waited.includes(id)).length === 3);
  hypervisor.fail("pause", new BelljarError("VMM_PROTOCOL", "the test"));
  await assert.rejects(world.source.fork(2), { message: "the test" });
  const last = networks.ahead.slice(2);
  assert.equal(last.length, 2);
  for (const id of last) {
    assert.deepEqual([networks.prepared.has(id), world.waiting().includes(id)], [false, false]);
    assert.equal((await readdir(world.runtime.deps.runDir)).includes(id), false);
  }
  assert.equal((await world.source.exec(["echo", "on"])).stdout, "on\n");
});

test("a spare that has ended, or is of no use, is no reason for a failure", async (t) => {
  const world = await open(t, 1);
  await world.source.fork(1);
  const spare = async (): Promise<string> => {
    await until(() => world.waiting().length === 1);
    return world.waiting()[0] ?? "";
  };
  const ended = await spare();
  world.runtime.hypervisor.waiting.get(ended)?.end();
  const [one] = await world.source.fork(1);
  assert.notEqual(one?.id, ended);
  const useless = await spare();
  world.runtime.hypervisor.fail("start", new BelljarError("VMM_START_FAILED", "the test"));
  const [two] = await world.source.fork(1);
  assert.deepEqual([two?.id, (await two?.info())?.state], [useless, "running"]);
  // A copy that does not come to be takes its spare with it.
  const last = await spare();
  world.runtime.hypervisor.fail(
    "start",
    ...Array.from({ length: 2 }, () => new BelljarError("VMM_START_FAILED", "the test")),
  );
  await assert.rejects(world.source.fork(1), { reason: "VMM_START_FAILED" });
  assert.equal(world.waiting().includes(last), false);
  assert.equal((await readdir(world.runtime.deps.runDir)).includes(last), false);
});

test("no spare waits on a file of memory that is gone, or is another one by now", async (t) => {
  const { runtime } = await open(t, 1);
  const { hypervisor, runDir, clock: slow, log } = runtime.deps;
  const clock = { ...slow, sleep: async () => {} };
  const { networks, cgroups } = runtime;
  const deps = { hypervisor, networks, cgroups, runDir, clock, log, size: 1, checkpointsDir: t.dir };
  const spares = new Spares({ ...deps, availableMemoryMib: async () => 16_384 });
  const path = join(t.dir, "memory");
  await writeFile(path, "");
  const { dev, ino } = await stat(path);
  const boot = { kernelPath: "/kernel", kernelArguments: [] };
  const memoryFile = { path, use: "private" } as const;
  const config = { acceleration: "tcg", memoryMib: 128, cpus: 1, boot, disks: [], memoryFile } as const;
  const kind = { key: "kind", network: undefined, memoryMib: 128, config, shared: [], memoryFileId: `${dev}:${ino}` };
  const starts = (): number => runtime.hypervisor.calls.filter((call) => call.startsWith("startWaiting")).length;
  spares.want({ ...kind, memoryFileId: `${dev}:1` });
  const { memoryFile: _, ...other } = config;
  spares.want({ ...kind, key: "other", config: other, memoryFileId: undefined });
  await until(() => spares.count({ ...kind, key: "other" }) === 1);
  spares.want(kind);
  await until(() => spares.count(kind) === 1);
  assert.equal(starts(), 2);
  // What is put in its place while QEMU starts is not taken for it.
  await spares.take(spares.idFor(kind))?.kill();
  const letGo = runtime.hypervisor.hold("startWaiting");
  spares.want(kind);
  await until(() => starts() === 3);
  await rm(path);
  letGo();
  await until(() => spares.count(kind) === 0 && runtime.hypervisor.waiting.size === 1);
  await spares.stop();
});

test("a spare waits where its copy's network will be, and is not used when that is another one by now", async (t) => {
  const world = await open(t, 1, "bridge");
  const { networks } = world.runtime;
  await world.source.fork(1);
  await until(() => world.waiting().length === 1);
  const [waiting = ""] = world.waiting();
  assert.equal(networks.prepared.has(waiting), true);
  const [fork] = await world.source.fork(1);
  assert.equal(fork?.id, waiting);
  assert.match((await fork?.info())?.network?.namespace ?? "", new RegExp(`${waiting}$`));
  await until(() => world.waiting().length === 1);
  networks.isAt = async () => false;
  const [stray = ""] = world.waiting();
  const [other] = await world.source.fork(1);
  assert.deepEqual([other?.id, (await other?.info())?.state], [stray, "running"]);
  await world.runtime.core.release();
  assert.equal(networks.prepared.size, 0);
});
