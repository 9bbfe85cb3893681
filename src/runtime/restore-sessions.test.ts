import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError, type Clock, checkpointLimits, systemClock } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";
import type { RestoreOptions, SandboxHandle } from "./interface.ts";

interface Setup {
  readonly runtime: MemoryRuntime;
  readonly source: SandboxHandle;
}

/** A checkpoint `pod` of a sandbox with the containers `main`, `web` and `db`, all of which run. */
async function setUp(t: TestScope, clock: Clock = systemClock): Promise<Setup> {
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk, clock });
  const source = await runtime.core.sandboxes.create({ image: "busybox", name: "source" });
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  for (const name of ["web", "db"]) {
    const container = await source.containers.create({ image: "busybox", name, command: ["sleep", "1000"] });
    await container.start();
  }
  await source.checkpoint({ name: "pod" });
  return { runtime, source };
}

const sandboxes = async ({ runtime }: Setup): Promise<number> => (await runtime.core.sandboxes.list()).length;

test("restore one by one: it begins with the last container, each has its new id by its name", async (t) => {
  const setup = await setUp(t);
  const { runtime, source } = setup;
  const main = source.main.name;
  await using session = await runtime.core.checkpoints.begin("pod", { name: "again" });
  assert.deepEqual([...session.expected].sort(), [main, "db", "web"].sort());
  await session.add({ name: "web", id: "web-of-the.pod" });
  await session.add({ name: main, id: "f".repeat(64) });
  assert.equal(await sandboxes(setup), 1);
  const waiting = session.wait();
  // Somebody else gives the last one.
  await (await runtime.core.checkpoints.session(session.id)).add({ name: "db" });
  const copy = await waiting;
  assert.equal(copy.name, "again");
  const containers = await copy.containers.list();
  assert.deepEqual(
    containers.map(({ name, id, state }) => [name, id, state]),
    [
      [main, "f".repeat(64), "running"],
      ["web", "web-of-the.pod", "running"],
      ["db", (await source.containers.get("db")).id, "running"],
    ],
  );
  const web = await copy.containers.get("web-of-the.pod");
  // The guest has it under the id that it had.
  assert.equal((await web.exec(["echo", "on"])).stdout, "on\n");
  assert.equal((await web.processes()).length, 1);
  await web.pause();
  await web.resume();
  const logs = await readdir(join(runtime.sandboxesDir, copy.id, "logs"));
  assert.ok(logs.includes("web-of-the.pod"), String(logs));

  // Another owner takes it up, and a copy of the copy goes on.
  await runtime.reopen();
  const taken = await runtime.core.sandboxes.get("again");
  const known = await taken.containers.get("web");
  assert.deepEqual([known.id, (await known.info()).state], ["web-of-the.pod", "running"]);
  await taken.checkpoint({ name: "second" });
  const next = await runtime.core.checkpoints.restore("second", { containers: [{ name: "web", id: "third" }] });
  assert.equal((await (await next.containers.get("third")).exec(["echo", "on"])).stdout, "on\n");
  // Stopped and started in another VM it keeps its id, and can be removed.
  await next.stop();
  await next.start();
  await (await next.containers.get("third")).delete({ force: true });
  assert.equal((await next.containers.list()).length, 2);
});

test("restore one by one: a second of a name or an id is refused, and the others may still come", async (t) => {
  const setup = await setUp(t);
  await using session = await setup.runtime.core.checkpoints.begin("pod");
  await session.add({ name: "web", id: "one" });
  await assert.rejects(session.add({ name: "web" }), { reason: "CONTAINER_EXISTS", message: /web was given already/ });
  await assert.rejects(session.add({ name: "db", id: "one" }), {
    reason: "CONTAINER_EXISTS",
    message: /belongs to .* web/,
  });
  await assert.rejects(session.add({ name: "db", id: "../one" }), { reason: "INVALID_ARGUMENT" });
  await session.add({ name: "db" });
  await session.add({ name: setup.source.main.name });
  assert.equal((await (await session.wait()).info()).state, "running");
  assert.equal(await sandboxes(setup), 2);
});

test("restore one by one: a container that nobody knows gives up all, with the names that there are", async (t) => {
  const setup = await setUp(t);
  await using session = await setup.runtime.core.checkpoints.begin("pod");
  const waiting = assert.rejects(session.wait(), { reason: "CHECKPOINT_MISMATCH" });
  await session.add({ name: "web" });
  await assert.rejects(session.add({ name: "wed" }), {
    reason: "CHECKPOINT_MISMATCH",
    message: /no container "wed"; it has .*web, db/,
  });
  await waiting;
  await assert.rejects(session.add({ name: "db" }), { reason: "CHECKPOINT_MISMATCH" });
  assert.equal(await sandboxes(setup), 1);
});

test("restore one by one: what is not complete in time, given up, or cut short leaves nothing", async (t) => {
  const manual = new ManualClock();
  // Time stands still for those who wait for containers alone.
  const setup = await setUp(t, {
    nowMs: () => systemClock.nowMs(),
    monotonicMs: () => systemClock.monotonicMs(),
    sleep: (ms, signal) => (ms === checkpointLimits.restoreSessionTimeoutMs ? manual : systemClock).sleep(ms, signal),
  });
  const { runtime } = setup;
  const { checkpoints } = runtime.core;
  const late = await checkpoints.begin("pod");
  await late.add({ name: "web" });
  const told = assert.rejects(late.wait(), { reason: "DEADLINE_EXCEEDED", message: /not given within .*: .*, db$/ });
  manual.advance(checkpointLimits.restoreSessionTimeoutMs);
  await told;
  await assert.rejects(checkpoints.session(late.id), { reason: "CHECKPOINT_NOT_FOUND" });

  const given = await checkpoints.begin("pod");
  await given[Symbol.asyncDispose]();
  await assert.rejects(given.add({ name: "web" }), { reason: "CANCELLED" });

  const failing = await checkpoints.begin("pod");
  for (const name of failing.expected.slice(0, 2)) await failing.add({ name });
  runtime.hypervisor.fail("start", new BelljarError("NOT_ENOUGH_MEMORY", "no memory"));
  await assert.rejects(failing.add({ name: failing.expected[2] ?? "" }), { reason: "NOT_ENOUGH_MEMORY" });
  await assert.rejects(failing.wait(), { reason: "NOT_ENOUGH_MEMORY" });

  const begun = await checkpoints.begin("pod");
  await runtime.reopen();
  await assert.rejects(begun.wait(), { reason: "CANCELLED" });
  assert.equal(await sandboxes(setup), 1);
});

test("restore one by one: so many at a time, and those that are over make room", async (t) => {
  const { runtime } = await setUp(t);
  const { checkpoints } = runtime.core;
  const open = [];
  for (let count = 0; count < checkpointLimits.restoreSessionsMax; count += 1)
    open.push(await checkpoints.begin("pod"));
  await assert.rejects(checkpoints.begin("pod"), { reason: "DAEMON_BUSY" });
  await assert.rejects(open[7]?.add({ name: "none" }) ?? Promise.resolve(), { reason: "CHECKPOINT_MISMATCH" });
  await checkpoints.begin("pod");
});

test("specifications: differences are refused, told or ignored, and a dry run has them all", async (t) => {
  const setup = await setUp(t);
  const { checkpoints } = setup.runtime.core;
  const spec = { process: { cwd: "/elsewhere", env: ["A=other"] }, linux: { resources: { memory: { limit: 5 } } } };
  const containers = [{ name: "web", spec }];
  const found = async (options: RestoreOptions): Promise<(readonly [boolean, string])[]> => {
    const { findings } = await checkpoints.check("pod", options);
    return findings.filter(({ what }) => what === "specification").map(({ fits, detail }) => [fits, detail]);
  };
  const limit = "web: linux.resources.memory.limit was 0, and is 5, without effect on what runs";
  const cwd = "web: process.cwd was /, and is /elsewhere";
  assert.deepEqual(await found({ containers }), [
    [false, cwd],
    [true, limit],
  ]);
  assert.deepEqual(await found({ containers, specValidation: "warn" }), [
    [true, cwd],
    [true, limit],
  ]);
  assert.deepEqual(await found({ containers, specValidation: "ignore" }), []);
  await assert.rejects(checkpoints.restore("pod", { containers }), {
    reason: "CHECKPOINT_MISMATCH",
    message: /process\.cwd was \/, and is \/elsewhere/,
  });
  await assert.rejects(checkpoints.restore("pod", { containers: [{ name: "web", spec: "none" }] }), {
    reason: "INVALID_ARGUMENT",
  });
  await assert.rejects(checkpoints.restore("pod", { containers: [{ name: "none" }] }), {
    reason: "CHECKPOINT_MISMATCH",
    message: /no container "none"/,
  });
  const db = (await setup.source.containers.get("db")).id;
  await assert.rejects(checkpoints.restore("pod", { containers: [{ name: "web", id: db }] }), { message: /is db/ });
  assert.equal(await sandboxes(setup), 1);
  for (const specValidation of ["warn", "ignore"] as const) {
    const copy = await checkpoints.restore("pod", { containers, specValidation });
    assert.equal((await copy.info()).state, "running");
  }
});

test("checkpoints are counted, whether they succeed or not, and the count goes on in copies", async (t) => {
  const { runtime, source } = await setUp(t);
  const count = async (sandbox: SandboxHandle): Promise<number> => (await sandbox.info()).checkpoints;
  assert.equal(await count(source), 1);
  const copy = await runtime.core.checkpoints.restore("pod");
  assert.equal(await count(copy), 1);
  runtime.memory.failNext = new BelljarError("DISK_FULL", "no room");
  await assert.rejects(copy.checkpoint(), { reason: "DISK_FULL" });
  const [fork] = await copy.fork();
  assert.deepEqual([await count(copy), fork && (await count(fork))], [3, 3]);
  await runtime.reopen();
  assert.equal(await count(await runtime.core.sandboxes.get(copy.id)), 3);
  const state = await readFile(runtime.stateFile(copy.id), "utf8");
  assert.match(state, /"checkpoints": 3/);
});

test("waiting: the next checkpoint is told with its end, and a restore when all of it runs", async (t) => {
  const { runtime, source } = await setUp(t);
  const both = [source.waitForCheckpoint(), source.waitForCheckpoint()];
  const taken = await source.checkpoint({ name: "next" });
  assert.deepEqual(await Promise.all(both), [taken, taken]);
  const failing = assert.rejects(source.waitForCheckpoint(), { reason: "DISK_FULL" });
  runtime.memory.failNext = new BelljarError("DISK_FULL", "no room");
  await assert.rejects(source.checkpoint(), { reason: "DISK_FULL" });
  await failing;
  await assert.rejects(source.waitForCheckpoint({ signal: AbortSignal.abort() }), { reason: "CANCELLED" });
  await assert.rejects(source.waitForRestore(), { reason: "INVALID_TRANSITION" });

  const letGo = runtime.hypervisor.hold("start");
  const restoring = runtime.core.checkpoints.restore("next", { name: "copy" });
  let copy: SandboxHandle | undefined;
  await until(async () => {
    copy = await runtime.core.sandboxes.get("copy").catch(() => undefined);
    return copy !== undefined;
  });
  assert.ok(copy !== undefined);
  const waiting = copy.waitForRestore().then(async () => (await copy?.info())?.state);
  letGo();
  assert.equal(await waiting, "running");
  await restoring;
  const gone = assert.rejects(source.waitForCheckpoint(), { reason: "SANDBOX_NOT_FOUND" });
  await source.delete({ force: true });
  await gone;
});
