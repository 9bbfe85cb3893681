import assert from "node:assert/strict";
import { chmod, mkdir, open, readdir, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import type { MemoryGuest } from "../../test/support/memory-agent.ts";
import { MemoryNetworks } from "../../test/support/memory-networks.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError, runTool } from "../base/index.ts";
import { addressRequest, linkRequest } from "../protocol/index.ts";
import { systemDisk } from "../store/index.ts";
import { exportNamed, importNamed } from "./checkpoint-archives.ts";
import type { SandboxHandle } from "./interface.ts";

async function running(
  t: TestScope,
  networks?: MemoryNetworks,
): Promise<{ runtime: MemoryRuntime; source: SandboxHandle; dir: string }> {
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk, ...(networks === undefined ? {} : { networks }) });
  const network = networks === undefined ? {} : { network: { mode: "bridge" } as const };
  const source = await runtime.core.sandboxes.create({ image: "busybox", name: "source", ...network });
  // The image's only layer.
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  return { runtime, source, dir: join(runtime.deps.rootDir, "checkpoints") };
}

const checkpoints = (dir: string): Promise<string[]> =>
  readdir(dir).then(
    (names) => names.filter((name) => name !== "archives.lock").sort(),
    () => [],
  );

test("checkpoint: what runs goes on, is listed, and comes back as often as wanted, each time as somebody else", async (t) => {
  const { runtime, source } = await running(t);
  const taken = await source.checkpoint({ name: "first" });
  assert.equal((await source.info()).state, "running");
  assert.deepEqual(runtime.guests.guest(source.id).thaws.at(-1)?.event, "resumed");
  assert.equal(runtime.guests.guest(source.id).frozen, false);
  const [listed] = await runtime.core.checkpoints.list();
  assert.deepEqual(listed, await runtime.core.checkpoints.get("first"));
  assert.equal(listed?.id, taken.id);
  assert.deepEqual(listed?.source, { id: source.id, name: "source", generation: 0 });
  await source.delete({ force: true });

  const copies: SandboxHandle[] = [];
  for (const name of ["one", "two"]) copies.push(await runtime.core.checkpoints.restore("first", { name }));
  for (const copy of copies) {
    const info = await copy.info();
    assert.deepEqual([info.state, info.generation, info.hostname], ["running", 1, copy.id]);
    assert.deepEqual(
      info.containers.map(({ name, state }) => [name, state]),
      [[info.containers[0]?.name, "running"]],
    );
    const guest = runtime.guests.guest(copy.id);
    assert.equal(guest.frozen, false);
    const thaw = guest.thaws.at(-1);
    assert.deepEqual([thaw?.event, thaw?.sandboxId, thaw?.generation], ["restored", copy.id, 1]);
    assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  }
  const ids = copies.map(({ id }) => runtime.guests.guest(id).thaws.at(-1)?.machineId);
  assert.equal(new Set(ids).size, 2);
  // Pages first, then device state.
  assert.deepEqual(runtime.memory.loaded, [1, 1]);
  assert.equal((await runtime.core.checkpoints.remove("first")).id, taken.id);
  assert.deepEqual(await runtime.core.checkpoints.list(), []);
  assert.equal((await copies[0]?.exec(["echo", "on"]))?.stdout, "on\n");
});

test("checkpoint: disks are of the same instant; source and copies write to files of their own", async (t) => {
  const { runtime, source, dir } = await running(t);
  const disks = (id: string): Promise<string[]> => readdir(join(runtime.sandboxesDir, id, "disks"));
  const [first] = (await disks(source.id)).filter((name) => name.endsWith(".qcow2"));
  const stem = first?.replace(/\.qcow2$/, "");
  const taken = await source.checkpoint();
  assert.deepEqual((await disks(source.id)).sort(), ["blank.raw", `${stem}.1.qcow2`, `${stem}.qcow2`]);
  assert.deepEqual((await readdir(join(dir, taken.id, "disks"))).sort(), ["blank.raw", `${stem}.qcow2`]);
  assert.match(runtime.hypervisor.vms.get(source.id)?.disks.at(-1)?.path ?? "", /\.1\.qcow2$/);
  const copy = await runtime.core.checkpoints.restore(taken.id);
  assert.deepEqual((await disks(copy.id)).sort(), ["blank.raw", `${stem}.1.qcow2`, `${stem}.qcow2`]);
  const mine = runtime.hypervisor.vms.get(copy.id)?.disks.find(({ serial }) => serial === stem);
  assert.equal(mine?.path, join(runtime.sandboxesDir, copy.id, "disks", `${stem}.1.qcow2`));
  // Stopped and started again it is on its own disk, and its container can be removed with all its files.
  await copy.stop();
  await copy.start();
  assert.equal(runtime.hypervisor.vms.get(copy.id)?.disks.find(({ serial }) => serial === stem)?.path, mine?.path);
  await copy.main.delete({ force: true });
  assert.deepEqual(await disks(copy.id), ["blank.raw"]);
});

test("checkpoint: one that fails never harms the sandbox, and is nowhere", async (t) => {
  const { runtime, source, dir } = await running(t);
  const goesOn = async (): Promise<void> => {
    assert.equal((await source.info()).state, "running");
    assert.equal(runtime.guests.guest(source.id).frozen, false);
    assert.equal(runtime.hypervisor.vms.get(source.id)?.status, "running");
    assert.equal((await source.exec(["echo", "on"])).stdout, "on\n");
    assert.deepEqual(await checkpoints(dir), []);
    assert.deepEqual(await runtime.core.checkpoints.list(), []);
  };
  const full = new BelljarError("DISK_FULL", "no room");
  const died = new BelljarError("VMM_PROTOCOL", "QEMU saved no device state");
  runtime.memory.failNext = full;
  await assert.rejects(source.checkpoint(), { reason: "DISK_FULL" });
  await goesOn();
  for (const call of ["saveDevices", "useOverlays", "openOverlays", "pause"] as const) {
    runtime.hypervisor.fail(call, died);
    await assert.rejects(source.checkpoint(), { reason: "VMM_PROTOCOL" }, call);
    await goesOn();
  }
  runtime.guests.fault("freeze", { kind: "fail", error: new BelljarError("AGENT_FAILED", "does not freeze") });
  await assert.rejects(source.checkpoint(), { reason: "AGENT_FAILED" });
  await goesOn();
  await source.checkpoint({ name: "after-all" });
});

test("checkpoint: names are taken once, and what is not there is said", async (t) => {
  const { runtime, source } = await running(t);
  await source.checkpoint({ name: "taken" });
  await assert.rejects(source.checkpoint({ name: "taken" }), { reason: "CHECKPOINT_EXISTS" });
  await assert.rejects(source.checkpoint({ name: "no/path" }), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(runtime.core.checkpoints.restore("none"), { reason: "CHECKPOINT_NOT_FOUND" });
  await assert.rejects(runtime.core.checkpoints.restore("taken", { name: "source" }), {
    reason: "CHECKPOINT_MISMATCH",
    message: /there is a sandbox source already/,
  });
  await source.stop();
  await assert.rejects(source.checkpoint(), { reason: "INVALID_TRANSITION" });
});

test("checkpoint: a paused sandbox is saved as it is and stays paused; its copy runs", async (t) => {
  const { runtime, source } = await running(t);
  await source.pause();
  assert.equal(runtime.guests.guest(source.id).frozen, true);
  const taken = await source.checkpoint();
  assert.deepEqual([taken.state, (await source.info()).state], ["paused", "paused"]);
  const copy = await runtime.core.checkpoints.restore(taken.id);
  const { state, containers } = await copy.info();
  assert.deepEqual([state, containers[0]?.state], ["running", "running"]);
  await source.resume();
  assert.equal(runtime.guests.guest(source.id).frozen, false);
});

test("checkpoint: with `stop` the source ends; processes of exec end in the copy, unless they are kept", async (t) => {
  const { runtime, source } = await running(t);
  const left = await source.spawn(["sleep", "1000"]);
  const taken = await source.checkpoint({ stop: true });
  assert.equal((await source.info()).state, "stopped");
  const ended = await runtime.core.checkpoints.restore(taken.id);
  assert.deepEqual(
    (await ended.main.processes()).map(({ id }) => id),
    [""],
  );
  assert.equal(runtime.guests.guest(ended.id).container(ended.main.id).processes.size, 1);
  const kept = await runtime.core.checkpoints.restore(taken.id, { keepExec: true });
  assert.deepEqual(
    (await kept.main.processes()).map(({ id }) => id),
    ["", left.id],
  );
});

test("the time: a guest that was told it too late is told again, and not for ever", async (t) => {
  const { runtime, source } = await running(t);
  const guest = runtime.guests.guest(source.id);
  const told = async (...clockOffMs: number[]): Promise<(string | undefined)[]> => {
    guest.clockOffMs = clockOffMs;
    const before = guest.configured.length;
    await source.pause();
    await source.resume();
    return guest.configured.slice(before).map(({ hostname }) => hostname);
  };
  assert.deepEqual(await told(3), [source.id]);
  assert.deepEqual(await told(-500, -3), [source.id, undefined]);
  assert.deepEqual(await told(900, 900, 900, 900), [source.id, undefined, undefined]);
  assert.deepEqual(guest.clockOffMs, [900]);
});

test("a copy is told who it is in the call that thaws it, and its clock goes on by what it has missed", async (t) => {
  const { runtime, source } = await running(t);
  runtime.guests.guest(source.id).hasWaker = false;
  await source.checkpoint({ name: "running" });
  await source.pause();
  await source.checkpoint({ name: "paused" });
  const copy = async (name: string) => {
    const { id } = await runtime.core.checkpoints.restore(name);
    const { configured, thaws } = runtime.guests.guest(id);
    return { id, configured, sandbox: thaws.at(-1)?.sandbox };
  };
  const one = await copy("running");
  assert.deepEqual([one.configured.length, one.sandbox?.hostname], [1, one.id]);
  assert.equal(one.sandbox?.entropy?.length, 64);
  assert.ok(typeof one.sandbox.clockAdvanceNs === "bigint" && one.sandbox.realtimeNs === undefined);
  // Nobody knows when its clock stopped: it is told the time.
  const other = await copy("paused");
  assert.ok(typeof other.sandbox?.realtimeNs === "bigint" && other.sandbox.clockAdvanceNs === undefined);
});

test("a copy whose agent is older is told who it is before it is thawed", async (t) => {
  const { runtime, source } = await running(t);
  Object.assign(runtime.guests.guest(source.id), { isOlder: true, hasWaker: false });
  await source.checkpoint({ name: "older" });
  const calls: string[] = [];
  runtime.guests.onCall = (call) => calls.push(call);
  const { id } = await runtime.core.checkpoints.restore("older");
  assert.deepEqual(calls, ["configureSandbox", "thaw"]);
  const { configured, thaws } = runtime.guests.guest(id);
  assert.deepEqual([configured[0]?.sandboxId, thaws.at(-1)?.sandbox], [id, undefined]);
});

test("a copy whose clock is not right after all is told the time", async (t) => {
  const { runtime, source } = await running(t);
  runtime.guests.guest(source.id).hasWaker = false;
  await source.checkpoint({ name: "late" });
  const told = async (...clockOffMs: number[]): Promise<number> => {
    runtime.guests.onGuest = (guest) => {
      guest.clockOffMs = clockOffMs;
    };
    const { id } = await runtime.core.checkpoints.restore("late");
    return runtime.guests.guest(id).configured.length;
  };
  assert.equal(await told(3), 1);
  assert.equal(await told(-500, -3), 2);
  assert.equal(await told(900, 900, 900, 900, 900), 4);
});

test("a copy is brought back by a program of its guest, and its agent learns of it afterwards", async (t) => {
  const { runtime, source } = await running(t);
  const left = await source.spawn(["run"]);
  const before = runtime.guests.guest(source.id).process(source.main.id, left.id);
  await source.checkpoint({ name: "first" });
  const letAnswer = runtime.guests.hold("thaw");
  const copy = await runtime.core.checkpoints.restore("first", { hostname: "jug" });
  const guest = runtime.guests.guest(copy.id);
  assert.deepEqual([guest.frozen, guest.thaws.length, (await copy.info()).state], [false, 0, "running"]);
  const [woken] = guest.woken;
  assert.deepEqual(woken?.killed, [before.pid]);
  assert.equal(woken.files.get("/hostname"), "jug");
  assert.match(woken.files.get("/machine-id") ?? "", /^[0-9a-f]{32}$/);
  const time = /^event=restored generation=1 sandbox=(\w+) time=(.*)$/.exec(woken.files.get("/identity") ?? "");
  assert.equal(time?.[1], copy.id);
  letAnswer();
  assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  const [thaw] = guest.thaws;
  assert.deepEqual([thaw?.event, thaw?.sandboxId, guest.thaws.length], ["restored", copy.id, 1]);
  assert.equal(thaw?.toldAtMs, BigInt(Date.parse(time?.[2] ?? "")));
  assert.equal(thaw?.machineId, woken.files.get("/machine-id"));
  assert.equal(thaw?.sandbox?.clockAdvanceNs, 0n);
});

test("a copy whose guest's program fails or is not there is brought back by its agent", async (t) => {
  const { runtime, source } = await running(t);
  const guest = runtime.guests.guest(source.id);
  guest.wakeErrno = 2;
  await source.checkpoint({ name: "fails" });
  const failed = await runtime.core.checkpoints.restore("fails");
  const found = runtime.guests.guest(failed.id);
  assert.deepEqual([found.woken.length, found.thaws[0]?.toldAtMs, found.frozen], [0, 0n, false]);
  runtime.hypervisor.fail("openWakeLine", new BelljarError("VMM_DIED", "QEMU does not listen"));
  const alone = await runtime.core.checkpoints.restore("fails");
  assert.equal(runtime.guests.guest(alone.id).thaws.length, 1);
});

test("a copy with another network than its source has it before it runs; what fails half-way is done again by its agent", async (t) => {
  const networks = new MemoryNetworks();
  const { runtime, source } = await running(t, networks);
  await source.checkpoint({ name: "first" });
  const restored = async (): Promise<MemoryGuest> => {
    const { id } = await runtime.core.checkpoints.restore("first");
    const copy = await runtime.core.sandboxes.get(id);
    await copy.exec(["echo", "on"]);
    return runtime.guests.guest(id);
  };
  const same = await restored();
  assert.deepEqual([same.woken[0]?.network, same.networks.at(-1)?.setAgain], [[], false]);

  const [macAddress, address] = ["02:00:00:00:00:02", "10.88.0.9"];
  networks.guest = { macAddress, address };
  const other = await restored();
  const asked = other.woken[0]?.network.map((each) => Buffer.from(each).toString("hex")) ?? [];
  for (const request of [
    addressRequest("remove", { index: 2, address: "10.0.2.15/32" }),
    linkRequest({ index: 2, macAddress }),
    addressRequest("set", { index: 2, address: `${address}/32` }),
  ]) {
    assert.ok(asked.includes(request.toString("hex")), request.toString("hex"));
  }
  const [thaw] = other.thaws;
  assert.ok((thaw?.toldAtMs ?? 0n) > 0n);
  assert.deepEqual([thaw?.network?.interfaces?.[0]?.macAddress, thaw?.network?.setAgain], [macAddress, false]);

  runtime.guests.onGuest = (guest) => {
    guest.wakeErrno = 101;
  };
  const failed = await restored();
  assert.deepEqual([failed.woken.length, failed.thaws[0]?.toldAtMs, failed.networks.at(-1)?.setAgain], [0, 0n, true]);
  assert.equal(failed.frozen, false);
});

test("an owner that dies before it has asked the agents of its forks leaves it to the next one to have them go on", async (t) => {
  const { runtime, source } = await running(t);
  const forks = await source.fork({ count: 2 });
  const guests = forks.map(({ id }) => runtime.guests.guest(id));
  assert.deepEqual(
    guests.map(({ isResting }) => isResting),
    [true, true],
  );
  await runtime.takeOver();
  for (const { id } of forks) {
    const fork = await runtime.core.sandboxes.get(id);
    assert.equal((await fork.exec(["echo", "on"])).stdout, "on\n");
    assert.equal(runtime.guests.guest(id).thaws.at(-1)?.sandboxId, id);
  }
});

test("an owner that dies between the two leaves it to the next one to tell the agent", async (t) => {
  const { runtime, source } = await running(t);
  await source.checkpoint({ name: "first" });
  const letAnswer = runtime.guests.hold("thaw");
  const { id } = await runtime.core.checkpoints.restore("first", { name: "copy" });
  const taking = runtime.takeOver();
  letAnswer();
  await taking;
  const guest = runtime.guests.guest(id);
  const copy = await runtime.core.sandboxes.get("copy");
  assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  const thaw = guest.thaws.at(-1);
  assert.deepEqual([thaw?.event, thaw?.sandboxId, guest.woken.length], ["restored", id, 1]);
  assert.ok((thaw?.toldAtMs ?? 0n) > 0n);
  assert.doesNotMatch(await readFile(runtime.stateFile(id), "utf8"), /returning/);
});

test("hooks: one that fails is told of a source, and is the end of a copy", async (t) => {
  const { runtime, source } = await running(t);
  const guest = runtime.guests.guest(source.id);
  const containerId = source.main.id;
  guest.failingHooks = ["before-save", "after-resume"].map((hook) => ({ containerId, hook, message: "no" }));
  await source.checkpoint({ name: "good" });
  assert.equal(guest.frozen, false);
  guest.failingHooks.push({ containerId, hook: "after-restore", message: "it ended with status 3: no\u001b[31m keys" });
  await source.checkpoint({ name: "bad" });
  const before = (await runtime.core.sandboxes.list()).length;
  await assert.rejects(runtime.core.checkpoints.restore("bad"), {
    reason: "HOOK_FAILED",
    message: /^the hook after-restore of the container \w+: it ended with status 3: no \[31m keys$/,
  });
  await assert.rejects(source.fork({ count: 2 }), { reason: "HOOK_FAILED" });
  assert.equal((await runtime.core.sandboxes.list()).length, before);
  assert.equal((await source.exec(["echo", "on"])).stdout, "on\n");
  await runtime.core.checkpoints.restore("good");
});

test("fork: one pause for all, names with numbers, all or nothing", async (t) => {
  const { runtime, source, dir } = await running(t);
  const pauses = (): number => runtime.hypervisor.calls.filter((call) => call === `pause ${source.id}`).length;
  const forks = await source.fork({ count: 3, name: "f{n}" });
  assert.equal(pauses(), 1);
  assert.deepEqual(
    forks.map(({ name }) => name),
    ["f1", "f2", "f3"],
  );
  const told = (fork: SandboxHandle | undefined): boolean =>
    runtime.guests.guest(fork?.id ?? "").thaws.at(-1)?.event === "forked";
  // Their containers run. Their agents are asked when the CPUs are free again, or when somebody wants something of one.
  const resting = (): boolean[] => forks.map(({ id }) => runtime.guests.guest(id).isResting);
  assert.deepEqual(
    [forks.map(told), resting()],
    [
      [false, false, false],
      [true, true, true],
    ],
  );
  assert.equal((await forks[1]?.exec(["echo", "on"]))?.stdout, "on\n");
  assert.deepEqual(forks.map(told), [false, true, false]);
  await until(() => forks.every(told));
  assert.deepEqual(resting(), [false, false, false]);
  // They share one file of memory, which is nobody's but theirs.
  const inodes = await Promise.all(
    forks.map(async ({ id }) => (await stat(join(runtime.sandboxesDir, id, "memory"))).ino),
  );
  assert.equal(new Set(inodes).size, 1);
  assert.deepEqual(await checkpoints(dir), []);

  const before = (await runtime.core.sandboxes.list()).length;
  let starts = 0;
  const { onStart } = runtime.hypervisor;
  runtime.hypervisor.onStart = async (vm, loaded) => {
    starts += 1;
    if (starts === 2) throw new BelljarError("NOT_ENOUGH_MEMORY", "no memory");
    await onStart?.(vm, loaded);
  };
  await assert.rejects(source.fork({ count: 3 }), { reason: "NOT_ENOUGH_MEMORY" });
  assert.equal((await runtime.core.sandboxes.list()).length, before);
  await assert.rejects(source.fork({ count: 2, name: "f{n}" }), { reason: "SANDBOX_EXISTS" });
  assert.deepEqual(await checkpoints(dir), []);
});

test("restore: a file that is missing, cut short or changed is named, and nothing is started", async (t) => {
  const { runtime, source, dir } = await running(t);
  const { id } = await source.checkpoint({ name: "good" });
  const names = (await readdir(join(dir, id), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && entry.name !== "manifest.json")
    .map((entry) => join(entry.parentPath, entry.name));
  assert.ok(names.length >= 6, String(names));
  for (const path of names) {
    const { size, mode } = await stat(path);
    if (size === 0) continue;
    const keep = await readFile(path);
    await chmod(path, 0o600);
    const file = await open(path, "r+");
    const at = Math.floor(size / 2);
    const byte = Buffer.alloc(1);
    await file.read(byte, 0, 1, at);
    await file.write(Buffer.of((byte[0] ?? 0) ^ 1), 0, 1, at);
    await file.close();
    await assert.rejects(runtime.core.checkpoints.restore("good"), (error: BelljarError) => {
      assert.ok(["CHECKPOINT_MISMATCH", "CHECKPOINT_CORRUPT"].includes(error.reason), `${path}: ${error.reason}`);
      return error.message.includes("good") || error.message.includes(path);
    });
    await truncate(path, at);
    await assert.rejects(runtime.core.checkpoints.verify("good"), { reason: "CHECKPOINT_INCOMPLETE" }, path);
    await rm(path);
    await assert.rejects(runtime.core.checkpoints.verify("good"), { reason: "CHECKPOINT_INCOMPLETE" }, path);
    await writeFile(path, keep, { mode });
  }
  assert.equal((await runtime.core.sandboxes.list()).length, 1);
  await runtime.core.checkpoints.verify("good");
  await truncate(join(dir, id, "manifest.json"), 10);
  assert.match((await runtime.core.checkpoints.list())[0]?.problem ?? "", /manifest/);
  await runtime.core.checkpoints.remove(id);
});

test("restore: another VMM is told before anything starts, and by a dry run in full", async (t) => {
  const { runtime, source } = await running(t);
  await source.checkpoint({ name: "old" });
  assert.equal((await runtime.core.checkpoints.check("old")).fits, true);
  runtime.hypervisor.version = "2.0.0";
  const { fits, findings } = await runtime.core.checkpoints.check("old", { name: "source" });
  assert.equal(fits, false);
  const wrong = findings.filter((each) => !each.fits).map(({ what }) => what);
  assert.ok(wrong.includes("hypervisor") && wrong.includes("name"), String(wrong));
  await assert.rejects(runtime.core.checkpoints.restore("old"), {
    reason: "CHECKPOINT_MISMATCH",
    message: /memory 1\.0\.0 is wanted/,
  });
});

test("what a killed owner leaves: a sandbox that stood still goes on, half a checkpoint is nobody's", async (t) => {
  const { runtime, source, dir } = await running(t);
  const letGo = runtime.hypervisor.hold("saveDevices");
  const taking = source.checkpoint({ name: "never" }).catch(() => {});
  t.after(async () => {
    letGo();
    await taking;
  });
  await until(() => runtime.hypervisor.calls.some((call) => call.startsWith("saveDevices")));
  // It died here: the state says `checkpoint`, the guest stands still.
  assert.equal(runtime.hypervisor.vms.get(source.id)?.status, "paused");
  assert.equal(runtime.guests.guest(source.id).frozen, true);
  assert.equal((await checkpoints(dir)).length, 1);
  await runtime.takeOver();
  const found = await runtime.core.sandboxes.get("source");
  assert.deepEqual([(await found.info()).state, (await found.main.info()).state], ["running", "running"]);
  assert.equal(runtime.hypervisor.vms.get(source.id)?.status, "running");
  assert.equal(runtime.guests.guest(source.id).frozen, false);
  assert.equal((await found.exec(["echo", "on"])).stdout, "on\n");
  assert.deepEqual(await checkpoints(dir), []);
  assert.deepEqual(await runtime.core.checkpoints.list(), []);
});

test("archive: a checkpoint comes to another root as one file, whole, and is restored there", async (t) => {
  const { runtime, source } = await running(t);
  const taken = await source.checkpoint({ name: "travels" });
  const file = join(t.dir, "travels.tar");
  await exportNamed(runtime.deps.rootDir, "travels", file);
  // What was in the guest's memory is nobody else's.
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  for (const place of [join(t.dir, "nowhere/file.tar"), t.dir]) {
    await assert.rejects(exportNamed(runtime.deps.rootDir, "travels", place), {
      reason: "INVALID_ARGUMENT",
      message: new RegExp(`^${place} cannot be written: `),
    });
  }
  // Where neither the image's layer nor the template is.
  await rm(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`));
  const there = await MemoryRuntime.open(t, { disk: systemDisk });
  // The device state of the twin is a number that only its own hypervisor knows.
  Object.assign(there.deps, { hypervisor: runtime.hypervisor, connectAgent: runtime.guests.connect });
  await there.reopen();
  assert.deepEqual(await importNamed(there.deps.rootDir, file), { id: taken.id, name: "travels" });
  await assert.rejects(importNamed(there.deps.rootDir, file), { reason: "CHECKPOINT_EXISTS" });
  const copy = await there.core.checkpoints.restore("travels");
  assert.equal((await copy.exec(["echo", "on"])).stdout, "on\n");
  assert.ok((await readdir(join(there.sandboxesDir, copy.id, "disks"))).includes(`${"2".repeat(64)}.erofs`));
  assert.equal((await checkpoints(join(there.deps.rootDir, "checkpoints"))).length, 1);
});

test("archive: what tar takes for a change of a file is none where that got another name, and all else is told", async (t) => {
  const { runtime, source } = await running(t);
  await source.checkpoint({ name: "linked" });
  const path = process.env["PATH"];
  t.after(() => {
    process.env["PATH"] = path;
  });
  const saying = async (words: string): Promise<void> => {
    const bin = await tempDir(t);
    const script = `#!/bin/sh\nPATH="${path}"\ntar "$@" || exit\necho "tar: ${words}" >&2\nexit 1\n`;
    await writeFile(join(bin, "tar"), script, { mode: 0o755 });
    process.env["PATH"] = `${bin}:${path}`;
  };
  await saying("./base.img: file changed as we read it");
  await exportNamed(runtime.deps.rootDir, "linked", join(t.dir, "one.tar"));
  await saying("./base.img: File shrank by 4096 bytes; padding with zeros");
  await assert.rejects(exportNamed(runtime.deps.rootDir, "linked", join(t.dir, "two.tar")), {
    reason: "HOST_TOOL_FAILED",
    message: /two\.tar cannot be written/,
  });
});

test("archive: what is hostile, changed or cut short is refused, and nothing is left", async (t) => {
  const { runtime, source, dir } = await running(t);
  const { id } = await source.checkpoint({ name: "good" });
  const file = join(t.dir, "good.tar");
  await exportNamed(runtime.deps.rootDir, id, file);
  await runtime.core.checkpoints.remove(id);
  const bytes = await readFile(file);
  const bad = join(t.dir, "bad.tar");
  const refused = async (what: string): Promise<void> => {
    await assert.rejects(importNamed(runtime.deps.rootDir, bad), (error: BelljarError) => {
      assert.match(error.reason, /^CHECKPOINT_(CORRUPT|INCOMPLETE|MISMATCH)$/, what);
      // There is nothing yet that could be removed.
      assert.doesNotMatch(error.remedy ?? "", /checkpoint rm/, what);
      return true;
    });
    assert.deepEqual(await checkpoints(dir), [], what);
  };
  await writeFile(bad, bytes.subarray(0, bytes.length / 2));
  await refused("cut short");
  for (const at of [0.1, 0.3, 0.5, 0.7]) {
    const changed = Buffer.from(bytes);
    // In the content of files, which is not zeros.
    let place = Math.floor(changed.length * at);
    while (place < changed.length - 1 && changed[place] === 0) place += 1;
    changed[place] = (changed[place] ?? 0) ^ 0x20;
    await writeFile(bad, changed);
    await importNamed(runtime.deps.rootDir, bad).then(
      // A byte of tar's own padding makes no difference to what is unpacked.
      async () => await runtime.core.checkpoints.remove("good"),
      (error: BelljarError) => assert.match(error.reason, /^CHECKPOINT_/),
    );
    assert.deepEqual(await checkpoints(dir), []);
  }
  const evil = join(t.dir, "evil");
  await mkdir(evil);
  await symlink("/etc", join(evil, "disks"));
  await runTool("tar", ["--create", `--file=${bad}`, "-C", evil, "."]);
  await refused("a link");
  await writeFile(join(evil, "more"), "more");
  await rm(join(evil, "disks"));
  await runTool("tar", ["--create", "--absolute-names", `--file=${bad}`, join(evil, "more")]);
  await refused("a path from the root");
  await writeFile(bad, "no tar at all");
  await refused("no tar");
});
