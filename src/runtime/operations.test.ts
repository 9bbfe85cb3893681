import assert from "node:assert/strict";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import type { SandboxCreateConfig, SandboxEvent, SandboxHandle } from "./interface.ts";

const create = (world: MemoryRuntime, config: Partial<SandboxCreateConfig> = {}): Promise<SandboxHandle> =>
  world.core.sandboxes.create({ image: "busybox", ...config });

async function assertNothing(world: MemoryRuntime): Promise<void> {
  assert.deepEqual(await world.core.sandboxes.list(), []);
  assert.deepEqual(await readdir(world.sandboxesDir), []);
  assert.deepEqual(await readdir(world.deps.runDir), []);
  assert.deepEqual(world.hypervisor.live, []);
}

const failure = new BelljarError("AGENT_FAILED", "the test says no");

test("create: a failure at any step leaves nothing, and is the one that is told", async (t) => {
  const world = await MemoryRuntime.open(t);
  const { hypervisor, guests } = world;
  const faults: readonly (() => void)[] = [
    () => hypervisor.fail("start", failure),
    () => hypervisor.fail("plugDisk", failure),
    () => hypervisor.fail("plugDisk", undefined, failure),
    () => guests.fault("configureSandbox", { kind: "fail", error: failure }),
    () => guests.fault("createContainer", { kind: "fail", error: failure }),
    () => guests.fault("startContainer", { kind: "fail", error: failure }),
  ];
  for (const fault of faults) {
    fault();
    await assert.rejects(create(world, { name: "web" }), { reason: "AGENT_FAILED", message: /the test says no/ });
    await assertNothing(world);
  }
  guests.fault("createContainer", { kind: "lose" });
  await assert.rejects(create(world), { reason: "AGENT_DISCONNECTED" });
  guests.fault("startContainer", { kind: "wrong", fields: { pid: 0 } });
  await assert.rejects(create(world), { reason: "AGENT_PROTOCOL" });
  await assert.rejects(create(world, { container: { command: ["missing"] } }), {
    reason: "COMMAND_NOT_FOUND",
    message: 'the command "missing" does not exist in the container',
  });
  await assert.rejects(create(world, { image: "nowhere" }), { reason: "IMAGE_NOT_FOUND" });
  await assertNothing(world);
});

test("create: one that is cancelled leaves nothing, wherever it is", async (t) => {
  const world = await MemoryRuntime.open(t);
  for (const hold of [
    () => world.hypervisor.hold("start"),
    () => world.guests.hold("configureSandbox"),
    () => world.guests.hold("createContainer"),
    () => world.guests.hold("startContainer"),
  ]) {
    const release = hold();
    const controller = new AbortController();
    const creating = world.core.sandboxes.create({ image: "busybox" }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 30);
    await assert.rejects(creating, { reason: "CANCELLED" });
    release();
    await assertNothing(world);
  }
});

test("create container: rolled back in reverse order, the sandbox goes on", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const { vm } = world.guests.guest(sandbox.id);
  const disks = vm.disks.map(({ serial }) => serial);
  for (const kind of ["fail", "lose"] as const) {
    world.guests.fault("createContainer", kind === "fail" ? { kind, error: failure } : { kind });
    await assert.rejects(sandbox.containers.create({ image: "busybox", name: "second" }));
    assert.equal((await sandbox.containers.list()).length, 1);
    assert.deepEqual(
      vm.disks.map(({ serial }) => serial),
      disks,
    );
    assert.equal(world.guests.guest(sandbox.id).containers.size, 1);
    // Beside the disk that all of them lie over.
    const own = (await readdir(join(world.sandboxesDir, sandbox.id, "disks"))).filter((name) => name.startsWith("w-"));
    assert.equal(own.length, 1);
  }
  // Its own disk and the layer, which nobody else has once the first container is out of the guest.
  await sandbox.main.stop();
  const { calls } = world.hypervisor;
  calls.length = 0;
  world.guests.onCall = (call) => calls.push(call);
  world.guests.fault("createContainer", { kind: "fail", error: failure });
  await assert.rejects(sandbox.containers.create({ image: "busybox" }), { reason: "AGENT_FAILED" });
  const steps = calls.map((call) =>
    call
      .replace(sandbox.id, "")
      .replace(/(?<=[lw]-| )[0-9a-f]{12,}$/, "")
      .trim(),
  );
  assert.deepEqual(
    steps.map((step) => step.replace(/\s+/g, " ")),
    ["plugDisk l-", "plugDisk w-", "createContainer", "removeContainer", "unplugDisk w-", "unplugDisk l-"],
  );
  world.guests.onCall = undefined;
  await sandbox.main.start();
  // What cannot be undone is told beside the first error.
  world.guests.fault("createContainer", { kind: "fail", error: failure });
  world.hypervisor.fail("unplugDisk", new BelljarError("VMM_PROTOCOL", "the disk is stuck"));
  await assert.rejects(sandbox.containers.create({ image: "busybox" }), (error: BelljarError) => {
    assert.equal(error.reason, "AGENT_FAILED");
    assert.match(String(error.facts["notUndone"]), /unplug disk w-.*the disk is stuck/);
    return true;
  });
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
});

test("container: a start that fails leaves it stopped, with the cause; it can be started again", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const second = await sandbox.containers.create({ image: "busybox" });
  world.guests.fault("startContainer", { kind: "fail", error: failure });
  await assert.rejects(second.start(), { reason: "AGENT_FAILED" });
  const info = await second.info();
  assert.equal(info.state, "stopped");
  assert.equal(info.end?.reason, "AGENT_FAILED");
  assert.equal(world.guests.guest(sandbox.id).containers.has(second.id), false);
  await assert.rejects(second.wait(), { reason: "AGENT_FAILED" });
  await second.start();
  assert.equal((await second.info()).end, undefined);
});

test("start: when one container cannot be started, each has its own cause and all have stopped", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox" }, { start: false });
  const second = await sandbox.containers.create({ image: "busybox", name: "second", command: ["missing"] });
  const third = await sandbox.containers.create({ image: "busybox" });
  await assert.rejects(sandbox.start(), { reason: "COMMAND_NOT_FOUND" });
  assert.equal((await sandbox.info()).state, "stopped");
  assert.equal((await sandbox.info()).end?.reason, "COMMAND_NOT_FOUND");
  assert.equal((await second.info()).end?.reason, "COMMAND_NOT_FOUND");
  for (const other of [sandbox.main, third]) {
    const { state, end } = await other.info();
    assert.deepEqual([state, end?.reason], ["stopped", "CONTAINER_START_FAILED"]);
    assert.match(end?.message ?? "", /start of sandbox .* failed: its container second could not be started/);
  }
  assert.deepEqual(world.hypervisor.live, []);
  await second.delete();
  await sandbox.start();
  assert.deepEqual([(await third.info()).state, (await third.info()).end], ["running", undefined]);
  await sandbox.delete({ force: true });
});

test("container: stop asks, then kills, then takes it out of the guest; twice is success", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world, { container: { command: ["stubborn"] } });
  const { id } = sandbox.main;
  world.guests.calls.length = 0;
  world.hypervisor.calls.length = 0;
  await sandbox.main.stop({ timeoutMs: 20 });
  await sandbox.main.stop();
  assert.deepEqual(world.guests.calls, [`signalProcess ${id}`, `signalProcess ${id}`, `removeContainer ${id}`]);
  assert.deepEqual(
    world.hypervisor.calls.filter((call) => call.startsWith("unplugDisk")),
    [`unplugDisk ${sandbox.id} l-222222222222222222`, `unplugDisk ${sandbox.id} w-${id}`],
  );
  assert.equal((await sandbox.main.wait()).signal, 9);
});

test("container: a stop that fails leaves it as it was; a forced one ends stopped whatever happens", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  world.guests.fault("signalProcess", { kind: "fail", error: failure });
  await assert.rejects(sandbox.main.stop({ timeoutMs: 10 }), { reason: "AGENT_FAILED" });
  assert.equal((await sandbox.main.info()).state, "running");
  world.guests.fault("signalProcess", { kind: "fail", error: failure });
  world.guests.fault("removeContainer", { kind: "fail", error: failure });
  await sandbox.main.stop({ timeoutMs: 10, force: true });
  assert.equal((await sandbox.main.info()).state, "stopped");
});

test("container: layers are shared, and unplugged after their last user", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const second = await sandbox.containers.create({ image: "busybox" });
  const layer = (): boolean => world.guests.guest(sandbox.id).vm.disks.some(({ serial }) => serial.startsWith("l-"));
  await second.delete();
  assert.equal(layer(), true);
  await sandbox.main.stop({ timeoutMs: 10 });
  assert.equal(layer(), false);
});

test("kill: a process that is gone is success, and so is one that was never there", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const second = await sandbox.containers.create({ image: "busybox" });
  await second.kill();
  await sandbox.main.kill({ number: 15 });
  await until(async () => (await sandbox.main.info()).state === "stopped");
  await sandbox.main.kill();
  await assert.rejects(sandbox.main.kill({ number: 65 }), { reason: "INVALID_ARGUMENT" });
});

test("spawn: ends with its starter's signal and with its own handle; exec can be left behind", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const caller = new AbortController();
  const ended = await sandbox.spawn(["run"], { signal: caller.signal });
  const left = await sandbox.spawn(["run"], { signal: caller.signal, endOnAbort: false });
  caller.abort();
  assert.equal((await ended.status).signal, 9);
  const ids = async (): Promise<string[]> => (await sandbox.main.processes()).map(({ id }) => id);
  {
    await using own = await sandbox.spawn(["run"]);
    await using other = await sandbox.main.process(left.id);
    assert.ok((await ids()).includes(own.id) && other.id === left.id);
  }
  assert.deepEqual(await ids(), ["", ended.id, left.id]);
  const signal = AbortSignal.timeout(20);
  await assert.rejects(sandbox.exec(["run"], { signal, endOnAbort: false }), { reason: "CANCELLED" });
  await assert.rejects(sandbox.exec(["run"], { signal: AbortSignal.timeout(20) }), { reason: "CANCELLED" });
  await until(async () => (await ids()).length === 4);
  {
    await using second = await sandbox.containers.create({ image: "busybox" });
    await using same = await sandbox.containers.get(second.id);
    assert.equal((await sandbox.containers.list()).length, 2, same.id);
  }
  assert.equal((await sandbox.containers.list()).length, 1);
});

test("exec: any number at once, each with its own output; ended ones are forgotten", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const results = await Promise.all(Array.from({ length: 20 }, (_, i) => sandbox.exec(["echo", String(i)])));
  assert.deepEqual(
    results.map(({ stdout }) => stdout),
    Array.from({ length: 20 }, (_, i) => `${i}\n`),
  );
  assert.equal((await sandbox.exec(["exit", "7"])).exitCode, 7);
  assert.deepEqual(
    (await sandbox.main.processes()).map(({ id }) => id),
    [""],
  );
  const child = await sandbox.spawn(["run"], { env: ["A=1"], user: "1:1", cwd: "/tmp", capAdd: ["NET_ADMIN"] });
  const again = await sandbox.main.process(child.id);
  assert.equal(again.pid, child.pid);
  await again.signal(15);
  assert.equal((await child.status).signal, 15);
  await child.release();
  await child.release();
  await assert.rejects(sandbox.main.process(child.id), { reason: "PROCESS_NOT_FOUND" });
});

test("exec: an aborted one is ended in the guest", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const controller = new AbortController();
  const running = sandbox.exec(["run"], { signal: controller.signal });
  const guest = world.guests.guest(sandbox.id);
  await until(() => guest.container(sandbox.main.id).processes.size === 2);
  const [, process] = guest.container(sandbox.main.id).processes.values();
  controller.abort();
  await assert.rejects(running, { reason: "CANCELLED" });
  await until(() => process?.end !== undefined);
});

test("the VM's end: everything in it has stopped, the cause is kept, whoever waits is told", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const waiting = assert.rejects(sandbox.main.wait(), { reason: "GUEST_PANIC" });
  const reading = assert.rejects(sandbox.exec(["run"]), { reason: "GUEST_PANIC" });
  await until(() => world.guests.calls.some((call) => call.startsWith("execProcess")));
  world.guests.guest(sandbox.id).vm.end({ cause: "guest", panic: true, detail: "Kernel panic" });
  await waiting;
  await reading;
  const info = await sandbox.info();
  assert.equal(info.state, "stopped");
  assert.equal(info.end?.reason, "GUEST_PANIC");
  assert.equal(info.vmm, undefined);
  assert.deepEqual(await readdir(world.deps.runDir), []);
  await sandbox.start();
  assert.equal((await sandbox.info()).end, undefined);
});

test("delete: operations that race with it get a clear answer, and nothing is left", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await create(world);
  const release = world.guests.hold("signalProcess");
  const stopping = sandbox.stop({ timeoutMs: 10 });
  const deleting = sandbox.delete();
  const late = [sandbox.pause(), sandbox.main.start(), sandbox.delete(), sandbox.setAnnotations({ a: "b" })];
  const refused = late.map((each) => assert.rejects(each, { reason: "SANDBOX_NOT_FOUND" }));
  release();
  await stopping;
  await deleting;
  await Promise.all(refused);
  await assert.rejects(sandbox.info(), { reason: "SANDBOX_NOT_FOUND" });
  await assert.rejects(world.core.sandboxes.get(sandbox.id), { reason: "SANDBOX_NOT_FOUND" });
  await assertNothing(world);
});

test("names: unique, found by id, name and prefix; unsafe ones touch no file", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world, { name: "web" });
  assert.equal((await world.core.sandboxes.get("web")).id, sandbox.id);
  assert.equal((await world.core.sandboxes.get(sandbox.id.slice(0, 6))).id, sandbox.id);
  await assert.rejects(create(world, { name: "web" }), { reason: "SANDBOX_EXISTS" });
  await assert.rejects(create(world, { name: sandbox.id }), { reason: "SANDBOX_EXISTS" });
  const both = await Promise.allSettled([create(world, { name: "twin" }), create(world, { name: "twin" })]);
  assert.deepEqual(both.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  for (const name of ["", "..", "../../etc", "a/b", "a\0b", "-rf", "x".repeat(64)]) {
    await assert.rejects(create(world, { name }), { reason: "INVALID_ARGUMENT" });
    await assert.rejects(world.core.sandboxes.get(name), { reason: "SANDBOX_NOT_FOUND" });
    await assert.rejects(sandbox.containers.get(name), { reason: "CONTAINER_NOT_FOUND" });
    await assert.rejects(sandbox.containers.create({ image: "busybox", name }), { reason: "INVALID_ARGUMENT" });
  }
  await sandbox.containers.create({ image: "busybox", name: "db" });
  await assert.rejects(sandbox.containers.create({ image: "busybox", name: "db" }), { reason: "CONTAINER_EXISTS" });
  for (const each of both) if (each.status === "fulfilled") await each.value.delete({ force: true });
});

test("names: a prefix that several ids have is refused with the ids", async (t) => {
  const world = await MemoryRuntime.open(t);
  const made: SandboxHandle[] = [];
  const byFirst = new Map<string, number>();
  while (![...byFirst.values()].some((count) => count > 1)) {
    const sandbox = await world.core.sandboxes.create({ image: "busybox" }, { start: false });
    made.push(sandbox);
    byFirst.set(sandbox.id.slice(0, 1), (byFirst.get(sandbox.id.slice(0, 1)) ?? 0) + 1);
  }
  const [first] = [...byFirst].find(([, count]) => count > 1) ?? [""];
  await assert.rejects(world.core.sandboxes.get(first), { reason: "SANDBOX_AMBIGUOUS" });
  for (const each of made) await each.delete();
});

test("stopWithMain and autoRemove: the last output is read before everything goes", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await create(world, { stopWithMain: true, autoRemove: true, container: { command: ["run"] } });
  const events: SandboxEvent[] = [];
  const watching = (async () => {
    for await (const event of sandbox.watch()) events.push(event);
  })();
  const attached = await sandbox.main.attach();
  const waiting = sandbox.main.wait();
  const reading = (async () => {
    let text = "";
    for await (const chunk of attached.stdout) text += Buffer.from(chunk).toString();
    for await (const chunk of attached.stderr) text += Buffer.from(chunk).toString();
    return text;
  })();
  const init = world.guests.guest(sandbox.id).container(sandbox.main.id).init;
  init?.write(1, "first ");
  init?.write(2, "last");
  init?.exit(5);
  assert.equal((await waiting).exitCode, 5);
  assert.equal(await reading, "first last");
  await watching;
  assert.deepEqual(
    events.map((event) => (event.kind === "state" ? event.state : event.kind)),
    ["container", "stopped", "deleted"],
  );
  await until(async () => (await world.core.sandboxes.list()).length === 0);
  await assertNothing(world);
});

test("logs: what was written, its streams and times, before and after the end", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const init = world.guests.guest(sandbox.id).container(sandbox.main.id).init;
  init?.write(1, "one\ntwo\n");
  init?.write(2, "oops\n");
  const following = (async () => {
    const parts: string[] = [];
    for await (const { stream, data } of sandbox.main.logs({ follow: true }))
      parts.push(`${stream}${Buffer.from(data)}`);
    return parts.sort();
  })();
  await sandbox.main.stop({ timeoutMs: 100 });
  assert.deepEqual(await following, ["1one\ntwo\n", "2oops\n"]);
  const tail: string[] = [];
  for await (const { data } of sandbox.main.logs({ tailLines: 1 })) tail.push(Buffer.from(data).toString());
  assert.deepEqual(tail, ["oops\n"]);
});

test("pause: nothing is asked of a guest that stands still; what was frozen stays so", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const second = await sandbox.containers.create({ image: "busybox" });
  await second.start();
  await second.pause();
  const waiting = sandbox.main.wait();
  await sandbox.pause();
  assert.deepEqual(
    (await sandbox.containers.list()).map(({ state }) => state),
    ["paused", "paused"],
  );
  const { configured } = world.guests.guest(sandbox.id);
  const before = configured.length;
  await assert.rejects(sandbox.exec(["echo"]), { reason: "INVALID_TRANSITION", message: /is paused/ });
  await sandbox.resume();
  assert.equal(configured.length, before + 1);
  assert.deepEqual(
    (await sandbox.containers.list()).map(({ state }) => state),
    ["running", "paused"],
  );
  await sandbox.main.kill();
  assert.equal((await waiting).signal, 9);
});

test("annotations: merged, kept, and those of Belljar's own checked by name", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world, {
    annotations: { "io.belljar.sandbox.memory-mib": "512", "io.belljar.container.swap-bytes": "16777216", mine: "1" },
    container: { annotations: { "io.belljar.container.swappiness": "200" } },
  });
  assert.equal((await sandbox.info()).memoryMib, 512);
  const { request } = world.guests.guest(sandbox.id).container(sandbox.main.id);
  assert.equal(request.swappiness, 200);
  assert.equal(request.swap?.serial, `s-${sandbox.main.id}`);
  assert.deepEqual((await sandbox.main.info()).annotations, { "io.belljar.container.swappiness": "200" });
  await sandbox.setAnnotations({ mine: "2", yours: "3" });
  const { mine, yours } = await sandbox.annotations();
  assert.deepEqual([mine, yours], ["2", "3"]);
  await assert.rejects(sandbox.setAnnotations({ "io.belljar.sandbox.cpus": "2" }), { reason: "INVALID_ARGUMENT" });
  for (const wrong of [
    { "io.belljar.container.swappiness": "201" },
    { "io.belljar.container.swappiness": "-1" },
    { "io.belljar.container.swapiness": "10" },
    { "io.belljar.sandbox.cpus": "many" },
  ]) {
    await assert.rejects(create(world, { annotations: wrong }), { reason: "INVALID_ARGUMENT", message: /io\.belljar/ });
  }
});

test("limits: merged; beyond what the VM can have they are refused with that", async (t) => {
  const world = await MemoryRuntime.open(t);
  const asBig = { memoryMaxMib: 256, cpusMax: 1 };
  await using sandbox = await create(world, { ...asBig, container: { limits: { pids: 10 } } });
  await sandbox.main.update({ memoryBytes: 64 * 1024 * 1024 });
  assert.deepEqual((await sandbox.main.info()).limits, {
    memoryBytes: 64 * 1024 * 1024,
    cpus: undefined,
    cpuWeight: undefined,
    cpuset: undefined,
    pids: 10,
  });
  for (const wrong of [
    { memoryBytes: 2 ** 40 },
    { cpus: 2 },
    { cpus: -1 },
    { cpuWeight: 0 },
    { cpuset: "1" },
    { pids: 1.5 },
  ]) {
    await assert.rejects(sandbox.main.update(wrong), { reason: "INVALID_ARGUMENT" });
  }
  await sandbox.main.update({ memoryBytes: 0, cpus: 0 });
  assert.deepEqual(
    Object.entries((await sandbox.main.info()).limits).filter(([, value]) => value !== undefined),
    [["pids", 10]],
  );
  const [update] = world.guests.guest(sandbox.id).updates.slice(-1);
  assert.deepEqual([update?.memoryBytes, update?.cpuQuotaUs, update?.pids], [0n, 0n, undefined]);
  world.guests.fault("updateContainer", { kind: "fail", error: failure });
  await assert.rejects(sandbox.main.update({ pids: 20 }), { reason: "AGENT_FAILED" });
  assert.equal((await sandbox.main.info()).limits.pids, 10);
});

test("a guest that lies: figures and lists are bounded, answers that cannot be are refused", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const network = Array.from({ length: 10_000 }, () => ({ name: "\u001b[31m".repeat(100) }));
  world.guests.fault("getContainerStats", { kind: "wrong", fields: { network } });
  const stats = await sandbox.main.stats();
  assert.equal(stats.network.length, 256);
  assert.match(stats.network[0]?.name ?? "", /^[\w?]{1,64}$/);
  const child = await sandbox.spawn(["run"]);
  world.guests.fault("readOutput", { kind: "wrong", fields: { offset: 5n } });
  await assert.rejects(child.readOutput({ stream: 1, offset: 10n, maxBytes: 10, waitMs: 0 }), {
    reason: "AGENT_PROTOCOL",
  });
  world.guests.fault("execProcess", { kind: "wrong", fields: { pid: 0 } });
  await assert.rejects(sandbox.spawn(["run"]), { reason: "AGENT_PROTOCOL" });
});

test("a state directory that is removed under a live sandbox: it runs on, says so, and can be deleted", async (t) => {
  const world = await MemoryRuntime.open(t, { disk: undefined });
  const sandbox = await create(world);
  await rm(join(world.sandboxesDir, sandbox.id), { recursive: true });
  await assert.rejects(sandbox.setAnnotations({ a: "b" }), {
    reason: "STATE_MISSING",
    message: /removed from outside/,
  });
  assert.equal(world.hypervisor.live.length, 1);
  await sandbox.stop({ force: true, timeoutMs: 0 });
  assert.equal((await sandbox.info()).state, "stopped");
  await sandbox.delete({ force: true });
  await assertNothing(world);
});

test("waiting for one's turn can be given up, and nothing is done then", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const release = world.guests.hold("createContainer");
  const making = sandbox.containers.create({ image: "busybox" });
  const controller = new AbortController();
  const stopping = sandbox.stop({ signal: controller.signal });
  controller.abort();
  await assert.rejects(stopping, { reason: "CANCELLED" });
  release();
  await making;
  assert.equal((await sandbox.info()).state, "running");
});

test("closing a runtime undoes what is half created, and lets go of the rest", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await create(world, { name: "stays" });
  const release = world.guests.hold("createContainer");
  const making = assert.rejects(create(world, { name: "goes" }), { reason: "CANCELLED" });
  await until(() => world.hypervisor.live.length === 2);
  await world.core.release();
  await making;
  release();
  await assert.rejects(world.core.sandboxes.list(), { reason: "CANCELLED" });
  await assert.rejects(sandbox.exec(["true"]), { reason: "CANCELLED" });
  assert.equal(world.hypervisor.live.length, 1);
  await world.reopen();
  assert.deepEqual(
    (await world.core.sandboxes.list()).map(({ name, state }) => [name, state]),
    [["stays", "running"]],
  );
});

test("exec: a process outlasts a pause, and so do those who wait for it and read from it", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using sandbox = await create(world);
  const child = await sandbox.spawn(["run"]);
  const status = child.status;
  const reading = new Response(child.stdout).text();
  await sandbox.pause();
  assert.equal(await child.waitForEnd(20), undefined);
  const nothing = await child.readOutput({ stream: 1, offset: 0n, maxBytes: 10, waitMs: 20 });
  assert.deepEqual([nothing.data.length, nothing.end], [0, false]);
  const process = world.guests.guest(sandbox.id).process(sandbox.main.id, child.id);
  await sandbox.resume();
  process.write(1, "after");
  process.exit(4);
  assert.equal((await status).exitCode, 4);
  assert.equal(await reading, "after");
});

test("rename: the new name is unique and kept, the old one free", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await create(world, { name: "web" });
  await create(world, { name: "other" });
  await assert.rejects(sandbox.rename("other"), { reason: "SANDBOX_EXISTS" });
  await assert.rejects(sandbox.rename("../x"), { reason: "INVALID_ARGUMENT" });
  await sandbox.rename("web");
  await sandbox.rename("shop");
  assert.equal(sandbox.name, "shop");
  await create(world, { name: "web" });
  const { sandboxes } = await world.reopen();
  assert.equal((await sandboxes.get("shop")).id, sandbox.id);
});

test("events: what happens to a sandbox is told in its order, and again after the next owner has come", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await create(world, { name: "web" });
  await sandbox.rename("shop");
  await sandbox.delete({ force: true });
  const { sandboxes } = await world.reopen();
  const seen: string[] = [];
  for await (const event of sandboxes.events({ follow: false })) {
    const what = event.kind === "state" || event.kind === "container" ? event.state : "";
    seen.push(`${event.number} ${event.sandboxName} ${event.kind} ${what}`.trim());
  }
  assert.deepEqual(seen, [
    "1 web created",
    "2 web container ready",
    "3 web state running",
    "4 web container running",
    "5 shop renamed",
    "6 shop deleted",
  ]);
});
