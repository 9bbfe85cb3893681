import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";
import type { SandboxCreateConfig, SandboxHandle } from "./interface.ts";

async function world(
  t: TestScope,
  config: Partial<SandboxCreateConfig> = {},
): Promise<{ runtime: MemoryRuntime; sandbox: SandboxHandle; find(): Promise<SandboxHandle> }> {
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk });
  const sandbox = await runtime.core.sandboxes.create({ image: "busybox", name: "web", ...config });
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  return { runtime, sandbox, find: () => runtime.core.sandboxes.get("web") };
}

test("rewind: in place, to a checkpoint by name or by age, as often as wanted, from whatever it has become", async (t) => {
  const { runtime, sandbox, find } = await world(t);
  const first = await sandbox.checkpoint({ name: "first" });
  const { main } = sandbox;
  await sandbox.containers.create({ image: "busybox", name: "later" });
  await new Promise((resolve) => setTimeout(resolve, 30));
  const second = await sandbox.checkpoint({ name: "second" });
  const child = await sandbox.spawn(["run"]);
  assert.equal((await sandbox.rewind({ checkpoint: "first" })).id, first.id);
  const info = await sandbox.info();
  assert.deepEqual([info.id, info.name, info.state, info.generation], [sandbox.id, "web", "running", 1]);
  assert.deepEqual(
    info.containers.map(({ id }) => id),
    [main.id],
  );
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  const thaw = runtime.guests.guest(sandbox.id).thaws.at(-1);
  assert.deepEqual([thaw?.event, thaw?.endProcesses], ["restored", true]);
  await assert.rejects(sandbox.main.process(child.id), { reason: "PROCESS_NOT_FOUND" });
  // Forward again; what is in between is not lost by going back.
  await sandbox.rewind({ checkpoint: second.id.slice(0, 8) });
  assert.equal((await sandbox.info()).containers.length, 2);
  assert.equal((await sandbox.rewind({ beforeMs: first.createdAtMs })).id, first.id);
  assert.equal((await sandbox.rewind()).id, second.id);
  await sandbox.stop();
  await sandbox.rewind({ checkpoint: "first" });
  assert.equal((await sandbox.info()).state, "running");
  await sandbox.hibernate();
  await sandbox.rewind({ checkpoint: "first" });
  await sandbox.pause();
  await sandbox.rewind({ checkpoint: "first", keepExec: true });
  assert.equal(runtime.guests.guest(sandbox.id).thaws.at(-1)?.endProcesses, false);
  await runtime.reopen();
  assert.equal((await (await find()).exec(["echo", "on"])).stdout, "on\n");
  assert.deepEqual(runtime.hypervisor.live.length, 1);
  assert.ok(!(await readdir(join(runtime.sandboxesDir, sandbox.id))).includes("saved"));
  // Its disks are its own still: a checkpoint of today is not one of yesterday.
  await (await find()).checkpoint({ name: "third" });
  await (await find()).rewind({ checkpoint: "second" });
  await (await find()).rewind({ checkpoint: "third" });
});

test("rewind: what cannot be is refused before anything is ended; what fails later can be woken", async (t) => {
  const { runtime, sandbox } = await world(t);
  const other = await runtime.core.sandboxes.create({ image: "busybox", name: "other" });
  await assert.rejects(sandbox.rewind(), { reason: "CHECKPOINT_NOT_FOUND", message: /has none/ });
  const { createdAtMs } = await sandbox.checkpoint({ name: "own" });
  await other.checkpoint({ name: "others" });
  await assert.rejects(sandbox.rewind({ checkpoint: "others" }), {
    reason: "INVALID_ARGUMENT",
    message: /of sandbox other/,
  });
  await assert.rejects(sandbox.rewind({ beforeMs: createdAtMs - 1 }), { reason: "CHECKPOINT_NOT_FOUND" });
  runtime.hypervisor.version = "2.0.0";
  await assert.rejects(sandbox.rewind({ checkpoint: "own" }), { reason: "CHECKPOINT_MISMATCH" });
  runtime.hypervisor.version = "1.0.0";
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  runtime.hypervisor.fail("start", new BelljarError("NOT_ENOUGH_MEMORY", "no memory"));
  await assert.rejects(sandbox.rewind({ checkpoint: "own" }), { reason: "NOT_ENOUGH_MEMORY" });
  assert.equal((await sandbox.info()).state, "hibernated");
  await runtime.core.checkpoints.remove("own");
  await runtime.reopen();
  const again = await runtime.core.sandboxes.get("web");
  await until(async () => (await again.exec(["echo", "on"]).catch(() => ({ stdout: "" }))).stdout === "on\n", {
    what: "it can be used",
  });
  assert.equal((await again.info()).generation, 1);
});

test("trail: a checkpoint every so often while it runs, the latest are kept, also by the next owner", async (t) => {
  const { runtime, sandbox } = await world(t, { trail: { everyMs: 1_000, keep: 2 } });
  await sandbox.checkpoint({ name: "mine" });
  const trail = async (): Promise<string[]> =>
    (await runtime.core.checkpoints.list()).flatMap(({ id, trail: isOne }) => (isOne === true ? [id] : []));
  await until(async () => (await trail()).length === 2, { what: "there are two" });
  const before = await trail();
  await runtime.reopen();
  await until(async () => !(await trail()).includes(before[0] ?? ""), { what: "the oldest is gone" });
  assert.ok((await trail()).length <= 2);
  await runtime.core.checkpoints.get("mine");
  const again = await runtime.core.sandboxes.get("web");
  await again.pause();
  await new Promise((resolve) => setTimeout(resolve, 50));
  const still = await trail();
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.deepEqual(await trail(), still);
  assert.deepEqual((await again.info()).trail, { everyMs: 1_000, keep: 2 });
  await assert.rejects(runtime.core.sandboxes.create({ image: "busybox", trail: { everyMs: 1 } }), {
    reason: "INVALID_ARGUMENT",
  });
});

test("restart: one that has failed starts again, later each time and not for ever; one that was stopped does not", async (t) => {
  const { runtime, sandbox } = await world(t, { restart: { policy: "on-failure", maxRetries: 2 }, stopWithMain: true });
  const restart = async (): Promise<{ count?: number; nextAtMs?: number | undefined }> =>
    (await (await runtime.core.sandboxes.get("web")).info()).restart ?? {};
  const state = async (): Promise<string> => (await (await runtime.core.sandboxes.get("web")).info()).state;
  await sandbox.main.kill();
  await until(async () => (await restart()).nextAtMs !== undefined, { what: "it has failed" });
  // It is the next owner's to start it.
  await runtime.reopen();
  const isUp = async (): Promise<boolean> => {
    const { state: now, containers, restart: left } = await (await runtime.core.sandboxes.get("web")).info();
    return now === "running" && containers[0]?.state === "running" && left?.nextAtMs === undefined;
  };
  await until(isUp, { what: "it runs again" });
  assert.equal((await restart()).count, 1);
  runtime.hypervisor.vms.get(sandbox.id)?.end({ cause: "died", detail: "gone" });
  await until(async () => (await restart()).count === 2 && (await isUp()), { what: "it runs again" });
  const again = await runtime.core.sandboxes.get("web");
  await again.main.kill();
  await until(async () => (await state()) === "stopped", { what: "it stops" });
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal((await restart()).nextAtMs, undefined, "twice was all");
  await again.start();
  assert.equal((await restart()).count, 0);
  await again.stop({ timeoutMs: 1 });
  await runtime.reopen();
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.equal(await state(), "stopped");
  const wrong = { image: "busybox", autoRemove: true, restart: { policy: "on-failure" } } as const;
  await assert.rejects(runtime.core.sandboxes.create(wrong), { reason: "INVALID_ARGUMENT" });
});

test("restart from-checkpoint: it goes back to its latest one", async (t) => {
  const { runtime, sandbox } = await world(t, { restart: { policy: "from-checkpoint" } });
  await sandbox.checkpoint({ name: "good" });
  await sandbox.main.kill();
  await until(async () => (await sandbox.info()).generation === 1, { what: "it has gone back" });
  await until(async () => (await sandbox.main.info()).state === "running", { what: "it runs" });
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  assert.equal((await sandbox.info()).restart?.count, 1);
  await runtime.core.checkpoints.remove("good");
  await sandbox.main.kill();
  await until(async () => (await sandbox.info()).restart?.count === 2, { what: "it starts without one" });
  await until(async () => (await sandbox.main.info()).state === "running", { what: "it runs" });
});
