import assert from "node:assert/strict";
import { readdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { systemDisk } from "../store/index.ts";
import { listTemplates } from "./checkpoint-archives.ts";
import type { CheckpointInfo, SandboxHandle } from "./interface.ts";

interface Setup {
  readonly runtime: MemoryRuntime;
  readonly source: SandboxHandle;
  readonly template: CheckpointInfo;
}

async function setUp(t: TestScope): Promise<Setup> {
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk });
  const source = await runtime.core.sandboxes.create({ image: "busybox", name: "source" });
  // The image's only layer.
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  const template = await source.checkpoint({ name: "web", asTemplate: true });
  return { runtime, source, template };
}

test("template of a sandbox: what is started from it runs on, shares one file of memory, and is somebody else", async (t) => {
  const { runtime, source, template } = await setUp(t);
  assert.match(template.digest, /^[0-9a-f]{64}$/);
  assert.equal(template.isTemplate, true);
  assert.equal((await source.info()).state, "running");
  await source.delete({ force: true });
  const made: SandboxHandle[] = [];
  for (const name of ["web", template.id, template.digest.slice(0, 12)]) {
    made.push(await runtime.core.sandboxes.create({ template: name, hostname: "box" }));
  }
  for (const sandbox of made) {
    const info = await sandbox.info();
    assert.deepEqual([info.state, info.generation, info.hostname], ["running", 1, "box"]);
    assert.equal(info.containers[0]?.state, "running");
    assert.equal(info.vmm?.template, template.digest);
    assert.equal(runtime.guests.guest(sandbox.id).thaws.at(-1)?.event, "forked");
    assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  }
  const inodes = await Promise.all(
    made.map(async ({ id }) => (await stat(join(runtime.sandboxesDir, id, "memory"))).ino),
  );
  assert.equal(new Set(inodes).size, 1);
  // Nothing is put into their memory: all of it is in that file.
  const pages = await stat(join(runtime.deps.rootDir, "checkpoints", template.id, "pages.img"));
  assert.equal(pages.size, 0);
});

test("template of a sandbox: a process waits in each container that runs, in it and in its copies, for their first command", async (t) => {
  const { runtime, source, template } = await setUp(t);
  const waits = (id: string): boolean[] =>
    [...runtime.guests.guest(id).containers.values()].map(({ hasPrepared }) => hasPrepared);
  assert.deepEqual(waits(source.id), [true]);
  const copy = await runtime.core.sandboxes.create({ template: template.id });
  assert.deepEqual(waits(copy.id), [true]);
  await copy.exec(["echo", "on"]);
  assert.deepEqual([waits(copy.id), waits(source.id)], [[false], [true]]);
  // One that stands still is taken as it is, and so is one whose agent is older.
  await copy.pause();
  await copy.checkpoint({ asTemplate: true });
  await copy.resume();
  runtime.guests.guest(copy.id).isOlder = true;
  await copy.checkpoint({ asTemplate: true });
  assert.deepEqual(waits(copy.id), [false]);
  // A checkpoint that is not for new sandboxes leaves its source as it is.
  runtime.guests.guest(copy.id).isOlder = false;
  await copy.checkpoint();
  assert.deepEqual(waits(copy.id), [false]);
});

test("template of a sandbox: there after a restart, listed, verified, and removed without harm to what runs", async (t) => {
  const { runtime, template } = await setUp(t);
  await runtime.reopen();
  assert.deepEqual(await listTemplates(runtime.deps.rootDir), [await runtime.core.checkpoints.get("web")]);
  await runtime.core.checkpoints.verify("web");
  const sandbox = await runtime.core.sandboxes.create({ template: "web", autoRemove: true });
  await runtime.core.checkpoints.remove("web");
  assert.deepEqual(await listTemplates(runtime.deps.rootDir), []);
  assert.deepEqual(await readdir(join(runtime.deps.rootDir, "checkpoints")), []);
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  // A checkpoint of it has the memory that it was started from, and says which.
  assert.equal((await sandbox.checkpoint({ name: "later" })).template, template.digest);
  await assert.rejects(runtime.core.sandboxes.create({ template: "web" }), { reason: "TEMPLATE_NOT_FOUND" });
  // A checkpoint is none.
  await assert.rejects(runtime.core.sandboxes.create({ template: "later" }), { reason: "TEMPLATE_NOT_FOUND" });
});

test("template of a sandbox: one that is being started from is not removed", async (t) => {
  const { runtime } = await setUp(t);
  const letGo = runtime.hypervisor.hold("start");
  const starting = runtime.core.sandboxes.create({ template: "web" });
  starting.catch(() => {});
  await until(() => runtime.hypervisor.calls.filter((call) => call.startsWith("start ")).length >= 2);
  await assert.rejects(runtime.core.checkpoints.remove("web"), { reason: "CHECKPOINT_IN_USE", message: /1 starting/ });
  letGo();
  await starting;
  await runtime.core.checkpoints.remove("web");
});

test("template of a sandbox: what it has decided is refused by name, and nothing is made", async (t) => {
  const { runtime } = await setUp(t);
  const { sandboxes } = runtime.core;
  const before = (await sandboxes.list()).length;
  for (const [config, what] of [
    [{ memoryMib: 512 }, /memoryMib/],
    [{ image: "busybox", container: { env: ["A=1"] } }, /image, container/],
    [{ network: { mode: "user" } }, /mode/],
    [{ hostname: "no host name" }, /not a host name/],
    [{ name: "source" }, /there is a sandbox source already/],
    [{ network: { ports: [{ containerPort: 80 }] } }, /had no network/],
  ] as const) {
    await assert.rejects(sandboxes.create({ template: "web", ...config }), { message: what });
  }
  await assert.rejects(sandboxes.create({ template: "web" }, { start: false }), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(sandboxes.create({ template: "none" }), { reason: "TEMPLATE_NOT_FOUND" });
  assert.equal((await sandboxes.list()).length, before);
});
