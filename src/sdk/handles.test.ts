/** How long what a program holds goes on: with its handle, with a signal, with its connection. */
import assert from "node:assert/strict";
import type { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { cliEnvironment, type TestScope, test } from "../../test/support/harness.ts";
import { serveFake } from "../../test/support/served-fake.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import { type ConnectedRuntime, Runtime, resolvePaths, type SandboxHandle } from "./index.ts";

interface Setup {
  readonly fake: FakeRuntime;
  readonly client: ConnectedRuntime;
  readonly sandbox: SandboxHandle;
}

async function setUp(t: TestScope): Promise<Setup> {
  const fake = await serveFake(t);
  const paths = resolvePaths({}, cliEnvironment(t), process.getuid?.() ?? 0);
  const client = await Runtime.connect({ paths, startDaemon: false });
  t.after(() => client[Symbol.asyncDispose]());
  return { fake, client, sandbox: await client.sandboxes.create({ image: "fake", container: { command: ["wait"] } }) };
}

test("what is under way when the runtime is closed fails, and keeps nobody waiting", async (t) => {
  const { fake, client, sandbox } = await setUp(t);
  const main = await sandbox.main.attach();
  const outcomes = Promise.allSettled([
    main.status,
    main.stdout.getReader().read(),
    sandbox.waitForCheckpoint(),
    client.sandboxes.events()[Symbol.asyncIterator]().next(),
  ]);
  await until(() => fake.checkpoints.waiting > 0);
  await client[Symbol.asyncDispose]();
  for (const outcome of await outcomes) {
    assert.ok(outcome.status === "rejected");
    assert.equal(BelljarError.from(outcome.reason).message, "this runtime was closed");
  }
  await assert.rejects(sandbox.info(), { reason: "DAEMON_UNAVAILABLE", message: "this runtime was closed" });
});

test("a process ends with its starter's signal and with the handle that started it, and with no other", async (t) => {
  const { fake, sandbox } = await setUp(t);
  const fakeOf = (id: string) => fake.find(sandbox.id).processes.get(id);
  const caller = new AbortController();
  const ended = await sandbox.spawn(["wait"], { signal: caller.signal });
  const left = await sandbox.spawn(["wait"], { signal: caller.signal, endOnAbort: false });
  const forgotten = await sandbox.spawn(["wait"], { signal: caller.signal });
  await forgotten.release();
  caller.abort();
  await ended.status;
  assert.deepEqual(
    [ended, left, forgotten].map(({ id }) => fakeOf(id)?.signals),
    [[9], [], []],
  );
  const exec = sandbox.exec(["wait"], { signal: AbortSignal.timeout(50), endOnAbort: false });
  await assert.rejects(exec, { reason: "CANCELLED" });
  const [id = ""] = [...fake.find(sandbox.id).processes.keys()].slice(-1);
  await until(() => (fakeOf(id)?.detached ?? 0) > 0);
  assert.deepEqual([fakeOf(id)?.signals, fakeOf(id)?.released], [[], 0]);
  {
    await using own = await sandbox.spawn(["wait"]);
    await using other = await sandbox.main.process(left.id);
    assert.notEqual(own.id, other.id);
    assert.equal(other.id, left.id);
  }
  const [last = ""] = [...fake.find(sandbox.id).processes.keys()].slice(-1);
  assert.deepEqual([fakeOf(last)?.signals, fakeOf(last)?.released], [[9], 1]);
  assert.deepEqual([fakeOf(left.id)?.signals, fakeOf(left.id)?.released], [[], 0]);
  await assert.rejects(sandbox.spawn(["wait"], { signal: AbortSignal.abort() }), { reason: "CANCELLED" });
});

test("disposing deletes the container that this handle made, and no other", async (t) => {
  const { fake, sandbox } = await setUp(t);
  await (await sandbox.containers.get("main"))[Symbol.asyncDispose]();
  await sandbox.main[Symbol.asyncDispose]();
  assert.equal(fake.find(sandbox.id).containersDeleted, 0);
  await (await sandbox.containers.create({ image: "fake" }))[Symbol.asyncDispose]();
  assert.equal(fake.find(sandbox.id).containersDeleted, 1);
});
