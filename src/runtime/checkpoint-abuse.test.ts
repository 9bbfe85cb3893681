/** Checkpoints in bad company: damaged anywhere, taken in the middle of everything else, restored without end, by guests that do not go along. */
import assert from "node:assert/strict";
import { cp, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { seededRandom } from "../../test/support/random.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";
import type { SandboxHandle } from "./interface.ts";

const FLIPS = 12;
/** A thousand take a minute or two; `BELLJAR_TEST_RESTORES` says another number. */
const RESTORES = Number(process.env["BELLJAR_TEST_RESTORES"] ?? 150);
const AT_ONCE = 10;

interface World {
  readonly runtime: MemoryRuntime;
  readonly source: SandboxHandle;
  readonly dir: string;
}

async function world(t: TestScope): Promise<World> {
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk });
  const source = await runtime.core.sandboxes.create({ image: "busybox", name: "source" });
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  return { runtime, source, dir: join(runtime.deps.rootDir, "checkpoints") };
}

const complete = async (dir: string): Promise<string[]> =>
  (await readdir(dir).catch(() => [])).filter((name) => /^[0-9a-f]{12}$/.test(name));

async function filesOf(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

test("damage: any bit of any file, any length, any file in another's place: refused, and nothing is started", async (t) => {
  const { runtime, source, dir } = await world(t);
  const { id } = await source.checkpoint({ name: "good" });
  const random = seededRandom(7);
  const { checkpoints } = runtime.core;
  const files = await filesOf(join(dir, id));
  const refused = async (what: string): Promise<void> => {
    for (const attempt of [() => checkpoints.verify(id), () => checkpoints.restore(id)]) {
      await assert.rejects(
        attempt(),
        (error: BelljarError) => /^CHECKPOINT_(CORRUPT|INCOMPLETE|MISMATCH)$/.test(error.reason),
        what,
      );
    }
  };
  /** With this in the file's place, which is a link to somebody else's perhaps. */
  const instead = async (path: string, bytes: Buffer, what: string): Promise<void> => {
    await rename(path, `${path}-kept`);
    await writeFile(path, bytes, { mode: 0o600 });
    await refused(`${path}: ${what}`);
    await rename(`${path}-kept`, path);
  };
  let damaged = 0;
  for (const path of files) {
    const bytes = await readFile(path);
    // Large files are mostly zeros here; the bits that matter are at their beginning.
    const reach = Math.min(bytes.length, 1 << 20);
    if (reach === 0) continue;
    damaged += 1;
    for (let flip = 0; flip < FLIPS; flip += 1) {
      const at = random.below(reach);
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ (1 << random.below(8));
      await instead(path, changed, `a bit at ${at}`);
    }
    await instead(path, bytes.subarray(0, random.below(reach)), "cut short");
    await instead(path, Buffer.concat([bytes, Buffer.of(0)]), "a byte more");
    const middle = Math.floor(reach / 2);
    const swapped = Buffer.concat([bytes.subarray(middle), bytes.subarray(0, middle)]);
    if (!swapped.equals(bytes)) await instead(path, swapped, "its halves the other way round");
    const other = await readFile(files[(files.indexOf(path) + 1) % files.length] ?? path);
    if (!other.equals(bytes)) await instead(path, other, "another file");
  }
  assert.ok(damaged >= 6, String(files));
  assert.equal((await runtime.core.sandboxes.list()).length, 1);
  await checkpoints.verify(id);
  await checkpoints.restore(id);
});

test("damage: a checkpoint under another's id, or a second one of its name, harms neither", async (t) => {
  const { runtime, source, dir } = await world(t);
  const { id } = await source.checkpoint({ name: "good" });
  const fake = "0123456789ab";
  await cp(join(dir, id), join(dir, fake), { recursive: true });
  await assert.rejects(runtime.core.checkpoints.restore(fake), { reason: "CHECKPOINT_CORRUPT", message: /belongs to/ });
  await runtime.core.checkpoints.restore("good");
  await runtime.core.checkpoints.remove(fake);
  await runtime.core.checkpoints.verify("good");
});

test("a checkpoint in the middle of everything else: each of them ends, and what was running goes on", async (t) => {
  const { runtime, source, dir } = await world(t);
  const goesOn = async (): Promise<void> => {
    assert.equal((await source.info()).state, "running");
    assert.equal(runtime.guests.guest(source.id).frozen, false);
    assert.equal((await source.exec(["echo", "on"])).stdout, "on\n");
  };
  // Of other checkpoints: one at a time, and all of them.
  const five = await Promise.all(Array.from({ length: 5 }, () => source.checkpoint()));
  assert.equal(new Set(five.map(({ id }) => id)).size, 5);
  const order = runtime.hypervisor.calls
    .filter((call) => /^(pause|resume) /.test(call))
    .map((call) => call.split(" ")[0]);
  assert.deepEqual(order, Array.from({ length: 5 }, () => ["pause", "resume"]).flat());
  await goesOn();
  // Of commands.
  const commands = Array.from({ length: 10 }, (_, number) => source.exec(["echo", String(number)]));
  const [taken, ...answers] = await Promise.all([source.checkpoint({ name: "execs" }), ...commands]);
  assert.deepEqual(
    answers.map(({ stdout }) => stdout),
    Array.from({ length: 10 }, (_, number) => `${number}\n`),
  );
  await runtime.core.checkpoints.restore(taken.id);
  // Of a disk that is being plugged.
  const disk = join(t.dir, "disk.raw");
  await writeFile(disk, Buffer.alloc(1 << 20));
  const letGo = runtime.hypervisor.hold("plugDisk");
  const adding = source.devices.add({ kind: "block", path: disk, readOnly: true });
  await until(() => runtime.hypervisor.calls.some((call) => call.startsWith("plugDisk")));
  const during = source.checkpoint({ name: "hotplug" }).then(
    () => "taken",
    (error: BelljarError) => error.reason,
  );
  letGo();
  await adding;
  assert.match(await during, /^(taken|NOT_CHECKPOINTABLE)$/);
  await goesOn();
  // Of its deletion.
  const before = (await complete(dir)).length;
  const release = runtime.hypervisor.hold("saveDevices");
  const saves = (): number => runtime.hypervisor.calls.filter((call) => call.startsWith("saveDevices")).length;
  const saved = saves();
  const last = source.checkpoint({ name: "last" }).then(
    () => 1,
    () => 0,
  );
  await until(() => saves() !== saved);
  const deleting = source.delete({ force: true });
  release();
  const [made] = await Promise.all([last, deleting]);
  assert.equal((await complete(dir)).length, before + made);
  assert.deepEqual(
    (await readdir(dir)).filter((name) => name.startsWith(".")),
    [],
  );
  if (made === 1) await runtime.core.checkpoints.restore("last");
  await assert.rejects(source.info(), { reason: "SANDBOX_NOT_FOUND" });
});

test("a guest that does not go along when it is told who it is: no copy, nothing left, and the checkpoint stays good", async (t) => {
  const { runtime, source } = await world(t);
  await source.checkpoint({ name: "woken" });
  runtime.guests.guest(source.id).hasWaker = false;
  await source.checkpoint({ name: "good" });
  const silent = new BelljarError("AGENT_TIMEOUT", "the agent did not answer thaw in time");
  for (const method of ["configureSandbox", "thaw"] as const) {
    runtime.guests.guest(source.id).isOlder = method === "configureSandbox";
    await source.checkpoint({ name: method });
    for (const error of [silent, new BelljarError("AGENT_PROTOCOL", "no answer that makes sense")]) {
      runtime.guests.fault(method, { kind: "fail", error });
      await assert.rejects(runtime.core.checkpoints.restore(method), { reason: error.reason }, method);
      assert.deepEqual(
        (await readdir(runtime.sandboxesDir)).filter((name) => name !== source.id),
        [],
      );
      assert.equal(runtime.hypervisor.live.length, 1);
    }
  }
  // One that never answers is given up with its caller.
  const letGo = runtime.guests.hold("thaw");
  const giving = new AbortController();
  const restoring = runtime.core.checkpoints.restore("good", { signal: giving.signal });
  setTimeout(() => giving.abort(), 50);
  await assert.rejects(restoring, { reason: "CANCELLED" });
  letGo();
  assert.equal(runtime.hypervisor.live.length, 1);
  // Its source neither: one that was not frozen is not saved.
  runtime.guests.fault("freeze", { kind: "fail", error: silent });
  await assert.rejects(source.checkpoint(), { reason: "AGENT_TIMEOUT" });
  const copy = await runtime.core.checkpoints.restore("good");
  assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  // One that runs before its agent has answered, which then says that it is another one, ends, with its cause.
  runtime.guests.fault("thaw", { kind: "fail", error: new BelljarError("AGENT_FAILED", "who is that?") });
  const woken = await runtime.core.checkpoints.restore("woken");
  await until(async () => (await woken.info()).state === "stopped");
  assert.equal((await woken.info()).end?.reason, "AGENT_FAILED");
  // One that is late does not.
  runtime.guests.fault("thaw", { kind: "fail", error: silent });
  const late = await runtime.core.checkpoints.restore("woken");
  assert.equal((await late.exec(["echo", "on"])).stdout, "on\n");
});

test(
  "restores of one checkpoint without end: each is another sandbox, and nothing of them stays",
  async (t) => {
    const { runtime, source, dir } = await world(t);
    const { id } = await source.checkpoint({ name: "often" });
    const links = async (): Promise<number[]> =>
      await Promise.all((await filesOf(join(dir, id))).map(async (path) => (await stat(path)).nlink));
    await source.delete({ force: true });
    const before = await links();
    const seen = new Set<string>();
    const waiting = Array.from({ length: RESTORES }, (_, number) => number).values();
    const work = async (): Promise<void> => {
      for (const number of waiting) {
        const copy = await runtime.core.checkpoints.restore("often", { name: `copy-${number}` });
        const news = () => runtime.guests.guest(copy.id).thaws.at(-1);
        await until(() => news() !== undefined);
        const machineId = news()?.machineId ?? "";
        seen.add(copy.id).add(machineId);
        await copy.delete({ force: true });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    assert.equal(seen.size, 2 * RESTORES);
    assert.deepEqual(await runtime.core.sandboxes.list(), []);
    assert.deepEqual(await readdir(runtime.sandboxesDir), []);
    assert.equal(runtime.hypervisor.live.length, 0);
    assert.deepEqual(await links(), before);
    await runtime.core.checkpoints.verify("often");
  },
  { timeoutMs: 300_000 },
);
