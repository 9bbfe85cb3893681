/**
 * The owner of real VMs dies, or its VM does, or its state is harmed; the next owner says what there is, and nobody inside has
 * noticed. The owner is a process of its own (`test/programs/owner.ts`).
 */
import assert from "node:assert/strict";
import { readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool, systemClock } from "../../src/base/index.ts";
import { encodeEnvelope } from "../../src/store/index.ts";
import { OwnerProcess } from "../fault/owner-process.ts";
import { Counter, type FoundSandbox, listSandboxes } from "../fault/world.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";

/** Counts a hundred times a second. */
const counter = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 10000; done"];
const RECOVERY_MAX_MS = 5_000;

interface Place {
  readonly rootDir: string;
  readonly runDir: string;
}

async function place(t: TestScope): Promise<Place> {
  const dir = await tempDir(t);
  const places = { rootDir: join(dir, "root"), runDir: join(dir, "run") };
  t.after(async () => {
    const last = await own(places);
    for (const { id, problem } of await listSandboxes(last)) {
      if (problem === undefined) await last.ask({ do: "delete", sandbox: id });
    }
    await kill(last);
  });
  return places;
}

async function own(places: Place): Promise<OwnerProcess> {
  const owner = new OwnerProcess(places);
  const answer = await owner.ask({ do: "open" });
  assert.ok(answer.field("tookMs").number() < RECOVERY_MAX_MS, "the recovery took too long");
  return owner;
}

async function kill(owner: OwnerProcess): Promise<void> {
  process.kill(owner.pid, "SIGKILL");
  await owner.ended;
}

async function only(owner: OwnerProcess): Promise<FoundSandbox> {
  const [first, ...others] = await listSandboxes(owner);
  assert.deepEqual(others, []);
  assert.ok(first);
  return first;
}

const stateFile = ({ rootDir }: Place, { id }: FoundSandbox): string => join(rootDir, "sandboxes", id, "sandbox.json");

test("an owner killed by SIGKILL: what runs goes on, its output has no gap and no repeat", async (t) => {
  const places = await place(t);
  let owner = await own(places);
  await owner.ask({ do: "make witness", name: "witness", command: counter });
  const output = new Counter("witness");
  assert.deepEqual(await output.check(owner), []);
  const { vmmPid } = await only(owner);
  for (let round = 0; round < 3; round += 1) {
    await kill(owner);
    await systemClock.sleep(300);
    owner = await own(places);
    const found = await only(owner);
    assert.deepEqual([found.state, found.vmmPid, found.containers[0]?.state], ["running", vmmPid, "running"]);
    assert.deepEqual(await output.check(owner), []);
  }
  t.diagnostic(`counted to ${output.count}`);
  await kill(owner);
});

test("an owner killed over a paused sandbox: it is paused still, and goes on when it is told to", async (t) => {
  const places = await place(t);
  const owner = await own(places);
  await owner.ask({ do: "make witness", name: "target", command: counter });
  const output = new Counter("target");
  assert.deepEqual(await output.check(owner), []);
  await owner.ask({ do: "operate", operation: "pause", kill: undefined });
  await kill(owner);
  const next = await own(places);
  const found = await only(next);
  assert.deepEqual([found.state, found.containers[0]?.state], ["paused", "paused"]);
  await next.ask({ do: "operate", operation: "resume", kill: undefined });
  assert.deepEqual(await output.check(next), []);
  assert.equal((await only(next)).state, "running");
  await kill(next);
});

test("a VM killed while nobody owned it is a stopped sandbox with its cause", async (t) => {
  const places = await place(t);
  const owner = await own(places);
  await owner.ask({ do: "make witness", name: "witness", command: counter });
  const { vmmPid } = await only(owner);
  await kill(owner);
  assert.ok(vmmPid);
  process.kill(vmmPid, "SIGKILL");
  const next = await own(places);
  const answer = await next.ask({ do: "list" });
  const [found] = answer.field("sandboxes").array((sandbox) => ({
    state: sandbox.field("state").string(),
    reason: sandbox.field("end").field("reason").string(),
    container: sandbox.field("containers").array((container) => container.field("state").string())[0],
  }));
  assert.deepEqual(found, { state: "stopped", reason: "VMM_DIED", container: "stopped" });
  await kill(next);
});

test("a state file that is damaged or newer is told and left as it is, and so is its VM", async (t) => {
  const places = await place(t);
  const owner = await own(places);
  await owner.ask({ do: "make witness", name: "witness", command: counter });
  const sandbox = await only(owner);
  await kill(owner);
  const path = stateFile(places, sandbox);
  const good = await readFile(path);
  const damaged = Buffer.from(good);
  damaged[damaged.length - 5] = 0;
  for (const bytes of [damaged, Buffer.from(encodeEnvelope({ kind: "sandbox", version: 99, sequence: 9 }, {}))]) {
    await writeFile(path, bytes);
    const next = await own(places);
    const found = await only(next);
    assert.notEqual(found.problem, undefined);
    await kill(next);
    assert.deepEqual(await readFile(path), bytes);
    assert.ok(sandbox.vmmPid !== undefined && process.kill(sandbox.vmmPid, 0));
  }
  await writeFile(path, good);
  const last = await own(places);
  assert.deepEqual(await new Counter("witness").check(last), []);
  await kill(last);
});

test("a state directory that is moved away or read-only under a live sandbox: it runs on, and can be ended", async (t) => {
  const places = await place(t);
  const owner = await own(places);
  await owner.ask({ do: "make witness", name: "target", command: counter });
  const sandbox = await only(owner);
  const output = new Counter("target");
  assert.deepEqual(await output.check(owner), []);
  const dir = join(places.rootDir, "sandboxes", sandbox.id);
  await runTool("mount", ["--bind", dir, dir]);
  await runTool("mount", ["-o", "remount,ro,bind", dir]);
  try {
    await owner.ask({ do: "exec", sandbox: "target", command: ["true"] });
    await assert.rejects(owner.ask({ do: "operate", operation: "pause", kill: undefined }), /read-only/i);
    assert.equal((await only(owner)).state, "running");
  } finally {
    await runTool("umount", ["-l", dir]);
  }
  assert.deepEqual(await output.check(owner), []);
  await rename(dir, `${dir}-away`);
  assert.equal((await only(owner)).state, "running");
  await owner.ask({ do: "delete", sandbox: "target" });
  assert.deepEqual(await listSandboxes(owner), []);
  assert.throws(() => process.kill(sandbox.vmmPid ?? 0, 0), { code: "ESRCH" });
  await rm(`${dir}-away`, { recursive: true });
  assert.deepEqual(await readdir(join(places.rootDir, "sandboxes")), []);
  await kill(owner);
});
