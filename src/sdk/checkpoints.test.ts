import assert from "node:assert/strict";
import { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError, silentLog } from "../base/index.ts";
import { startDaemon } from "../daemon/index.ts";
import { Runtime, type SandboxHandle } from "./index.ts";

interface Setup {
  readonly fake: FakeRuntime;
  readonly runtime: Runtime;
  readonly sandbox: SandboxHandle;
}

async function setUp(t: TestScope): Promise<Setup> {
  const dir = await tempDir(t);
  const fake = new FakeRuntime();
  const daemon = await startDaemon({ root: dir, runDir: dir, log: silentLog, openRuntime: async () => fake });
  t.after(() => daemon.stop());
  const runtime = await Runtime.connect({ root: t.dir, socketPath: daemon.socketPath, startDaemon: false });
  t.after(() => runtime[Symbol.asyncDispose]());
  const sandbox = await runtime.sandboxes.create({ image: "fake", name: "source", container: { command: ["wait"] } });
  return { fake, runtime, sandbox };
}

const text = async (sandbox: SandboxHandle): Promise<string> =>
  Buffer.from(await sandbox.files.read("/count")).toString();

test("a checkpoint is made, told of, restored twice and removed, and the source goes on", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  await sandbox.files.write("/count", "1");
  await sandbox.spawn(["wait"]);
  const checkpoint = await sandbox.checkpoint({ name: "one" });
  await sandbox.files.write("/count", "2");
  assert.deepEqual(checkpoint, fake.checkpoints.find("one").info, "every field arrives");
  assert.deepEqual(await runtime.checkpoints.list(), [checkpoint]);
  assert.deepEqual(await runtime.checkpoints.get(checkpoint.id), checkpoint);
  assert.deepEqual(await runtime.checkpoints.verify("one"), checkpoint);
  assert.equal((await sandbox.info()).state, "running");

  const first = await runtime.checkpoints.restore("one", { name: "first", hostname: "other" });
  const second = await runtime.checkpoints.restore(checkpoint.id, { keepExec: true });
  assert.deepEqual([first.name, (await first.info()).hostname], ["first", "other"]);
  assert.deepEqual([second.name, await text(first), await text(second)], [second.id, "1", "1"]);
  assert.equal((await first.info()).generation, 1);
  assert.deepEqual([(await first.main.processes()).length, (await second.main.processes()).length], [1, 2]);
  assert.equal(await text(sandbox), "2");

  assert.deepEqual(await runtime.checkpoints.remove("one"), checkpoint);
  await assert.rejects(runtime.checkpoints.get("one"), { reason: "CHECKPOINT_NOT_FOUND", code: "not_found" });
  assert.equal((await second.info()).state, "running");
});

test("a checkpoint that cannot be read is told of with what is known", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  await sandbox.pause();
  const { id } = await sandbox.checkpoint({ stop: true });
  assert.equal((await sandbox.info()).state, "stopped");
  const taken = fake.checkpoints.find(id);
  taken.info = { ...taken.info, template: undefined, acceleration: "kvm", problem: "pages.img is cut short" };
  assert.deepEqual(await runtime.checkpoints.get(id), taken.info);
  assert.equal(taken.info.state, "paused");
  await assert.rejects(runtime.checkpoints.verify(id), { reason: "CHECKPOINT_CORRUPT", message: /cut short/ });
});

test("what would be restored is checked with what was asked", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  await sandbox.checkpoint({ name: "one" });
  const report = await runtime.checkpoints.check("one", { name: "n", hostname: "h", keepExec: true });
  assert.equal(report.fits, true);
  assert.equal(report.findings[1]?.detail, '{"name":"n","hostname":"h","keepExec":true}');
  fake.checkpoints.misfits = [{ what: "cpu", fits: false, detail: "avx2 is missing" }];
  const { fits, findings } = await runtime.checkpoints.check("one");
  assert.deepEqual([fits, findings.at(-1)], [false, fake.checkpoints.misfits[0]]);
  await assert.rejects(runtime.checkpoints.restore("one"), { reason: "CHECKPOINT_MISMATCH", message: /avx2/ });
  assert.equal(fake.all.size, 1);
});

test("a fork's count is a number or an option, and each fork is on its own", async (t) => {
  const { fake, sandbox } = await setUp(t);
  await sandbox.files.write("/count", "1");
  const [a, b, c] = await sandbox.fork(3);
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  await a.files.write("/count", "2");
  assert.deepEqual([await text(a), await text(b), await text(c), await text(sandbox)], ["2", "1", "1", "1"]);
  const named = await sandbox.fork({ count: 2, name: "f{n}", keepExec: true });
  assert.deepEqual(
    named.map(({ name }) => name),
    ["f1", "f2"],
  );
  assert.equal((await sandbox.fork()).length, 1);
  for (const options of [0, 1.5, { count: 2, name: "same" }]) {
    await assert.rejects(sandbox.fork(options), { reason: "INVALID_ARGUMENT" });
  }
  assert.equal(fake.all.size, 7);
});

test("handles of what was restored and forked own it", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  const { id } = await sandbox.checkpoint();
  {
    await using _restored = await runtime.checkpoints.restore(id);
    const [forked] = await sandbox.fork();
    await using _forked = forked;
    assert.equal(fake.all.size, 3);
  }
  assert.deepEqual([...fake.all.keys()], [sandbox.id]);
});

test("a caller that gives up ends the work in the daemon", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  const { id } = await sandbox.checkpoint();
  fake.checkpoints.hold = new Promise(() => {});
  const calls = [
    (signal: AbortSignal) => sandbox.checkpoint({ signal }),
    (signal: AbortSignal) => sandbox.fork({ count: 2, signal }),
    (signal: AbortSignal) => runtime.checkpoints.restore(id, { signal }),
    (signal: AbortSignal) => runtime.checkpoints.check(id, { signal }),
    (signal: AbortSignal) => runtime.checkpoints.verify(id, { signal }),
  ];
  for (const [index, call] of calls.entries()) {
    const controller = new AbortController();
    const calling = call(controller.signal);
    await Promise.race([calling, until(() => fake.checkpoints.waiting === 1)]);
    controller.abort(new BelljarError("CANCELLED", "enough"));
    await assert.rejects(calling, { reason: "CANCELLED", message: "enough" });
    await until(() => fake.checkpoints.cancelled === index + 1);
  }
  assert.deepEqual([fake.all.size, fake.checkpoints.all.size], [1, 1]);
});

test("what was made for a client that had gone by then is deleted; its checkpoint stays", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  const { id } = await sandbox.checkpoint();
  const release = Promise.withResolvers<void>();
  fake.checkpoints.hold = release.promise;
  fake.checkpoints.isDeaf = true;
  const controller = new AbortController();
  const { signal } = controller;
  const outcomes = Promise.allSettled([
    runtime.checkpoints.restore(id, { signal }),
    sandbox.fork({ count: 3, signal }),
    sandbox.checkpoint({ name: "kept", stop: true, signal }),
  ]);
  await until(() => fake.checkpoints.waiting === 3);
  controller.abort();
  for (const { status } of await outcomes) assert.equal(status, "rejected");
  // The daemon learns of it a moment later than the caller: a call that comes after has been answered by then.
  await runtime.sandboxes.list();
  release.resolve();
  await until(() => fake.checkpoints.made === 4 && fake.all.size === 1);
  await until(() => fake.checkpoints.all.size === 2);
  assert.deepEqual([...fake.all.keys()], [sandbox.id]);
});

test("a template is made of a sandbox, and others are started from it", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  await sandbox.files.write("/count", "1");
  const template = await sandbox.checkpoint({ name: "warm", asTemplate: true });
  assert.equal(template.isTemplate, true);
  assert.deepEqual(await runtime.checkpoints.list(), [template]);
  const made = await runtime.sandboxes.create({ template: "warm", name: "one", hostname: "box" });
  assert.deepEqual([made.name, await text(made), (await made.info()).hostname], ["one", "1", "box"]);
  assert.equal(fake.all.size, 2);
});

test("containers are given one by one, and what is asked of each arrives", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  await sandbox.checkpoint({ name: "one" });
  const spec = { process: { args: ["wait"] } };
  await using session = await runtime.checkpoints.begin("one", { name: "again" });
  assert.deepEqual(session.expected, ["main"]);
  const same = await runtime.checkpoints.session(session.id);
  const waiting = session.wait();
  await same.add({ name: "main", id: "other", spec });
  assert.deepEqual(fake.checkpoints.given, [{ name: "main", id: "other", spec }]);
  assert.equal((await waiting).name, "again");
  await assert.rejects(runtime.checkpoints.session("none"), { reason: "CHECKPOINT_NOT_FOUND" });
  const containers = [{ name: "main", spec }];
  const { findings } = await runtime.checkpoints.check("one", { containers, specValidation: "warn" });
  assert.deepEqual(JSON.parse(findings[1]?.detail ?? ""), { containers, specValidation: "warn" });
});

test("the next checkpoint and the end of a restore are waited for", async (t) => {
  const { fake, runtime, sandbox } = await setUp(t);
  const waiting = sandbox.waitForCheckpoint();
  await until(() => fake.checkpoints.waiting !== 0);
  const taken = await sandbox.checkpoint({ name: "one" });
  assert.deepEqual(await waiting, taken);
  await assert.rejects(sandbox.waitForRestore(), { reason: "INVALID_TRANSITION" });
  const copy = await runtime.checkpoints.restore("one");
  await copy.waitForRestore();
  assert.equal((await copy.info()).checkpoints, 1);
  const giving = new AbortController();
  const given = sandbox.waitForCheckpoint({ signal: giving.signal });
  giving.abort();
  await assert.rejects(given, { reason: "CANCELLED" });
});
