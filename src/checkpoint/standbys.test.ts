import assert from "node:assert/strict";
import { readdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import type { MemoryGuest } from "../../test/support/memory-agent.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError, type LogFields, silentLog } from "../base/index.ts";
import type { SandboxHandle } from "../runtime/index.ts";
import { Spares, Standbys } from "./index.ts";

interface World {
  readonly runtime: MemoryRuntime;
  readonly source: SandboxHandle;
  /** Of a checkpoint. */
  readonly id: string;
  restore(): Promise<SandboxHandle>;
  /** Ids of those that wait. */
  waiting(): Promise<readonly string[]>;
  /** One that waits, and its guest. */
  standby(): Promise<{ readonly id: string; readonly guest: MemoryGuest }>;
}

async function open(t: TestScope, size: number, mode?: "bridge"): Promise<World> {
  const runtime = await MemoryRuntime.open(t);
  const { hypervisor, runDir, rootDir, clock: slow, connectAgent } = runtime.deps;
  const made = new Set<unknown>();
  const log = { ...silentLog, info: (_: string, fields?: LogFields) => void made.add(fields?.["sandbox"]) };
  const clock = { ...slow, sleep: async () => {} };
  const { networks, cgroups, sandboxesDir } = runtime;
  const availableMemoryMib = async (): Promise<number> => 16_384;
  const room = { hypervisor, networks, cgroups, runDir, clock, log, size, availableMemoryMib };
  const spares = new Spares({ ...room, checkpointsDir: join(rootDir, "checkpoints") });
  const standbys = new Standbys({ ...room, connectAgent, sandboxesDir, layersDir: join(rootDir, "images/layers") });
  Object.assign(runtime.deps, { spares, standbys });
  await runtime.reopen();
  const config = { image: "busybox", ...(mode === undefined ? {} : { network: { mode } }) };
  const source = await runtime.core.sandboxes.create(config);
  // The image's only layer.
  await writeFile(join(dirname(rootDir), `${"2".repeat(64)}.erofs`), "layer");
  const { id } = await source.checkpoint();
  const waiting = async (): Promise<readonly string[]> =>
    (await readdir(sandboxesDir)).filter((name) => name.startsWith(".new-")).map((name) => name.slice(5));
  return {
    runtime,
    source,
    id,
    restore: () => runtime.core.checkpoints.restore(id),
    waiting,
    standby: async () => {
      await until(async () => (await waiting()).filter((each) => made.has(each)).length === size);
      const [first = ""] = await waiting();
      return { id: first, guest: runtime.guests.guest(first) };
    },
  };
}

test("after the first restore the next ones are copies that wait, whose containers have stood still until then", async (t) => {
  const { runtime, restore, standby, waiting } = await open(t, 1);
  assert.deepEqual(await waiting(), []);
  await restore();
  const { id, guest } = await standby();
  assert.equal(guest.frozen, true);
  assert.deepEqual([guest.thaws.length, [...guest.containers.keys()].includes("rehearsal")], [0, false]);
  const calls = runtime.hypervisor.calls.length;
  const copy = await restore();
  assert.equal(copy.id, id);
  assert.deepEqual([guest.frozen, (await copy.info()).state], [false, "running"]);
  assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  assert.equal(guest.thaws.at(-1)?.sandboxId, id);
  const start = `start ${id}`;
  assert.equal(runtime.hypervisor.calls.slice(calls).includes(start), false);
  // It has been in its control group since before its guest ran.
  assert.deepEqual(
    runtime.cgroups.moves.filter((each) => each === id),
    [id],
  );
  // Its disks are its own, in its own place, and there its state finds them.
  const disks = runtime.hypervisor.vms.get(id)?.disks.filter(({ serial }) => serial !== "root") ?? [];
  assert.ok(disks.some(({ readOnly }) => !readOnly));
  for (const { path, readOnly } of disks) {
    assert.equal((await stat(path)).isFile(), true);
    if (!readOnly) assert.equal(dirname(path), join(runtime.sandboxesDir, id, "disks"));
  }
  // Another one takes its place; what is made of the copy is as what is made of any other.
  assert.notEqual((await standby()).id, id);
  const { id: own } = await copy.checkpoint();
  assert.equal((await (await runtime.core.checkpoints.restore(own)).info()).state, "running");
  await runtime.core.release();
  assert.deepEqual(await waiting(), []);
  assert.equal((await readdir(runtime.deps.runDir)).length, runtime.hypervisor.live.length);
  assert.equal(runtime.cgroups.ids.length, runtime.hypervisor.live.length);
});

test("one that has ended, or is of no use, is no reason for a failure, and its disks are nobody's", async (t) => {
  const { runtime, restore, standby, waiting } = await open(t, 1, "bridge");
  await restore();
  const diskOf = async (id: string): Promise<string> => {
    const dir = join(runtime.sandboxesDir, `.new-${id}`, "disks");
    const [name = ""] = (await readdir(dir)).filter((each) => each.endsWith(".qcow2"));
    return join(dir, name);
  };
  const ended = await standby();
  runtime.hypervisor.vms.get(ended.id)?.end({ cause: "died", detail: "the test" });
  await until(async () => !(await waiting()).includes(ended.id));
  assert.notEqual((await restore()).id, ended.id);
  // In another network by now: the copy is started anew, on disks that no guest has written to.
  const stray = await standby();
  await writeFile(await diskOf(stray.id), "the guest was here");
  const { isAt } = runtime.networks;
  runtime.networks.isAt = async () => false;
  const copy = await restore();
  runtime.networks.isAt = isAt;
  assert.deepEqual([copy.id, (await copy.info()).state], [stray.id, "running"]);
  const [own = ""] = (runtime.hypervisor.vms.get(copy.id)?.disks ?? []).flatMap(({ path }) =>
    path.endsWith(".qcow2") ? [path] : [],
  );
  assert.ok((await stat(own)).size > 100);
  // A copy that does not come to be takes what waited for it with it.
  const last = await standby();
  runtime.hypervisor.fail("resume", new BelljarError("VMM_PROTOCOL", "the test"));
  await assert.rejects(restore(), { reason: "VMM_PROTOCOL" });
  await until(async () => !(await readdir(runtime.sandboxesDir)).some((name) => name.includes(last.id)));
  assert.equal(runtime.hypervisor.vms.get(last.id)?.hasEnded, true);
  await runtime.core.release();
  assert.equal(runtime.networks.prepared.size, 0);
});

test("none waits for a checkpoint that is removed", async (t) => {
  const { runtime, source, restore, standby, waiting, id } = await open(t, 2);
  const { id: copy } = await restore();
  await standby();
  assert.equal((await waiting()).length, 2);
  await runtime.core.checkpoints.remove(id);
  assert.deepEqual(await waiting(), []);
  assert.deepEqual(runtime.hypervisor.live.map((vm) => vm.config.id).toSorted(), [copy, source.id].toSorted());
});

test("what a killed owner leaves of them is removed by the next one", async (t) => {
  const { runtime, restore, standby, waiting } = await open(t, 1);
  await restore();
  const { id } = await standby();
  assert.equal(runtime.cgroups.ids.includes(id), true);
  Object.assign(runtime.deps, { spares: undefined, standbys: undefined });
  await runtime.takeOver();
  assert.deepEqual(await waiting(), []);
  assert.equal(runtime.cgroups.ids.includes(id), false);
  assert.equal(
    (await runtime.core.sandboxes.list()).some((each) => each.id === id),
    false,
  );
});
