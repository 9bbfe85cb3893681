import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { checkpointLimits } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";
import type { SandboxHandle } from "./interface.ts";

async function running(t: TestScope): Promise<{ runtime: MemoryRuntime; source: SandboxHandle }> {
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk });
  const source = await runtime.core.sandboxes.create({ image: "busybox", name: "source" });
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  return { runtime, source };
}

const LEAST = checkpointLimits.overlaysJoined;

/** As many as `count` checkpoints, of which the last three are kept. */
async function trail(runtime: MemoryRuntime, source: SandboxHandle, count: number): Promise<string[]> {
  const kept: string[] = [];
  for (let number = 0; number < count; number += 1) {
    kept.push((await source.checkpoint()).id);
    if (kept.length > 3) await runtime.core.checkpoints.remove(kept.shift() ?? "");
  }
  return kept;
}

const disksOf = async (runtime: MemoryRuntime, id: string): Promise<string[]> =>
  (await readdir(join(runtime.sandboxesDir, id, "disks"))).sort();

async function joins(runtime: MemoryRuntime, count: number): Promise<void> {
  await until(() => runtime.hypervisor.calls.filter((call) => call.startsWith("useJoined")).length >= count);
}

test("a trail of checkpoints goes on: what lies below a disk becomes one file, and checkpoints keep theirs", async (t) => {
  const { runtime, source } = await running(t);
  const early = (await source.checkpoint({ name: "early" })).id;
  const dir = join(runtime.deps.rootDir, "checkpoints");
  const before = await readdir(join(dir, early, "disks"));
  const bytes = await readFile(join(dir, early, "disks", before.find((name) => name.endsWith(".qcow2")) ?? ""));
  await trail(runtime, source, LEAST);
  await joins(runtime, 1);
  // The turn after the join: what is not needed has gone.
  await source.setAnnotations({ done: "1" });
  const left = (await disksOf(runtime, source.id)).filter((name) => name.endsWith(".qcow2"));
  assert.ok(left.length < 6, String(left));
  assert.ok(!left.some((name) => name.includes(".0.qcow2")), String(left));
  const joined = runtime.hypervisor.vms.get(source.id)?.disks.find((disk) => disk.joined !== undefined);
  assert.ok((joined?.overlays ?? 0) >= LEAST, JSON.stringify(joined));
  assert.deepEqual(await readdir(join(dir, early, "disks")), before);
  assert.deepEqual(
    await readFile(join(dir, early, "disks", before.find((name) => name.endsWith(".qcow2")) ?? "")),
    bytes,
  );
  await runtime.core.checkpoints.verify("early");

  const [oldest] = await trail(runtime, source, LEAST + 4);
  await joins(runtime, 2);
  for (const id of [early, oldest ?? ""]) {
    const copy = await runtime.core.checkpoints.restore(id);
    assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  }
  // Another owner takes it up as it is; stopped and started it is on what it was on.
  await runtime.reopen();
  const again = await runtime.core.sandboxes.get("source");
  await again.checkpoint();
  await again.stop();
  await again.start();
  await again.checkpoint();
  await again.main.delete({ force: true });
  assert.deepEqual(
    (await disksOf(runtime, again.id)).filter((name) => name.endsWith(".qcow2")),
    [],
  );
});

test("a join that fails changes nothing, and is begun again by the next checkpoint", async (t) => {
  const { runtime, source } = await running(t);
  runtime.hypervisor.fail("useJoined", new Error("no"));
  await trail(runtime, source, LEAST + 1);
  await joins(runtime, 1);
  assert.equal((await source.exec(["echo", "on"])).stdout, "on\n");
  const kept = await trail(runtime, source, LEAST + 2);
  await joins(runtime, 2);
  for (const id of kept) await runtime.core.checkpoints.verify(id);
  await runtime.core.checkpoints.restore(kept[0] ?? "");
});

test("forks leave no more files below a disk than checkpoints do, and an owner that finds many joins them", async (t) => {
  const { runtime, source } = await running(t);
  const overlays = (): number => {
    const { disks = [] } = runtime.hypervisor.vms.get(source.id) ?? {};
    return Math.max(...disks.map(({ overlays: all = 0, joined = 0 }) => all - joined));
  };
  const forkAll = async (count: number): Promise<void> => {
    for (let number = 0; number < count; number += 1) {
      const [fork] = await (await runtime.core.sandboxes.get("source")).fork(1);
      await fork?.delete({ force: true });
    }
  };
  await forkAll(LEAST);
  await joins(runtime, 1);
  await until(() => overlays() < 6);
  // An owner that goes before it has joined them leaves that to the next one, who need not make a copy for it.
  await forkAll(LEAST);
  await runtime.reopen();
  await until(() => overlays() < 6);
});
