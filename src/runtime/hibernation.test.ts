import assert from "node:assert/strict";
import { cp, readdir, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { dirname, join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import type { MemoryCall } from "../../test/support/memory-hypervisor.ts";
import { MemoryNetworks } from "../../test/support/memory-networks.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";
import type { SandboxCreateConfig, SandboxHandle } from "./interface.ts";

interface World {
  readonly runtime: MemoryRuntime;
  readonly networks: MemoryNetworks;
  readonly sandbox: SandboxHandle;
  find(): Promise<SandboxHandle>;
  state(): Promise<string>;
  saved(): Promise<string[]>;
}

async function world(t: TestScope, config: Partial<SandboxCreateConfig> = {}): Promise<World> {
  const networks = new MemoryNetworks();
  const runtime = await MemoryRuntime.open(t, { disk: systemDisk, networks });
  const sandbox = await runtime.core.sandboxes.create({ image: "busybox", name: "web", ...config });
  await writeFile(join(dirname(runtime.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  const find = (): Promise<SandboxHandle> => runtime.core.sandboxes.get("web");
  return {
    ...{ runtime, networks, sandbox, find },
    state: async () => (await (await find()).info()).state,
    saved: () => readdir(join(runtime.sandboxesDir, sandbox.id, "saved")).catch(() => []),
  };
}

test("hibernate: no VM is left, and the next exec finds everything where it was", async (t) => {
  const { runtime, sandbox, find, state, saved } = await world(t);
  const child = await sandbox.spawn(["run"]);
  const { pid } = await sandbox.main.info();
  await sandbox.hibernate();
  const { state: now, vmm, hibernation, containers } = await sandbox.info();
  assert.deepEqual([now, vmm, containers[0]?.state], ["hibernated", undefined, "paused"]);
  assert.ok((hibernation?.sinceMs ?? 0) > 0);
  assert.deepEqual(runtime.hypervisor.live, []);
  assert.equal((await saved()).length, 1);
  await sandbox.hibernate();
  // Whoever looks, or is told, does not disturb it; nor does another owner.
  await sandbox.setAnnotations({ looked: "at" });
  for await (const _ of sandbox.main.logs()) break;
  await sandbox.main.processes();
  await assert.rejects(sandbox.stats(), { reason: "INVALID_TRANSITION", message: /is hibernated/ });
  await runtime.reopen();
  assert.equal(await state(), "hibernated");
  assert.deepEqual(runtime.core.recovered, []);

  const again = await find();
  assert.equal((await again.exec(["echo", "on"])).stdout, "on\n");
  const awake = await again.info();
  assert.deepEqual([awake.state, awake.generation, awake.annotations["looked"]], ["running", 0, "at"]);
  assert.equal((await again.main.info()).pid, pid);
  assert.equal(runtime.guests.guest(sandbox.id).thaws.at(-1)?.event, "resumed");
  assert.deepEqual(runtime.memory.loaded, [1]);
  await (await again.main.process(child.id)).signal(9);
  assert.equal((await (await again.main.process(child.id)).status).signal, 9);
  await until(async () => (await saved()).length === 0, { what: "what it slept in is removed" });
  // Again, from the disks that it has now.
  await again.hibernate();
  await again.wake();
  await again.wake();
  assert.equal((await again.exec(["echo", "on"])).stdout, "on\n");
  const states: string[] = [];
  for await (const event of runtime.core.sandboxes.events({ follow: false })) {
    if (event.kind === "state") states.push(event.state);
  }
  assert.deepEqual(states, ["running", "hibernated", "running", "hibernated", "running"]);
});

test("wake: exec, files, attach, signals, changes and forks each do it; several at once do it once", async (t) => {
  const { runtime, sandbox, state } = await world(t);
  const child = await sandbox.spawn(["run"]);
  const reasons: Record<string, () => Promise<unknown>> = {
    spawn: () => sandbox.spawn(["true"]),
    files: () => sandbox.files.read("/nowhere").catch(() => {}),
    attach: () => sandbox.main.attach(),
    signal: async () => (await sandbox.main.process(child.id)).signal(9),
    update: () => sandbox.main.update({ pids: 50 }),
    container: () => sandbox.containers.create({ image: "busybox" }),
    checkpoint: () => sandbox.checkpoint(),
    fork: () => sandbox.fork(),
    start: () => sandbox.start(),
    resume: () => sandbox.resume(),
    several: () => Promise.all([sandbox.exec(["echo", "1"]), sandbox.exec(["echo", "2"]), sandbox.wake()]),
  };
  for (const [what, act] of Object.entries(reasons)) {
    await sandbox.hibernate();
    const startsBefore = runtime.hypervisor.calls.filter((call) => call === `start ${sandbox.id}`).length;
    await act();
    assert.equal(await state(), "running", what);
    const starts = runtime.hypervisor.calls.filter((call) => call === `start ${sandbox.id}`).length - startsBefore;
    assert.equal(starts, 1, what);
  }
  await sandbox.hibernate();
  await sandbox.pause();
  assert.equal(await state(), "paused");
  await assert.rejects(sandbox.hibernate(), { reason: "INVALID_TRANSITION" });
  await sandbox.resume();
  await sandbox.hibernate();
  await sandbox.stop({ timeoutMs: 1 });
  assert.equal(await state(), "stopped");
  await assert.rejects(sandbox.wake(), { reason: "INVALID_TRANSITION", remedy: /Start it/ });
  await sandbox.start();
  await sandbox.hibernate();
  await sandbox.stop({ force: true });
  assert.deepEqual(
    [await state(), runtime.hypervisor.live.filter(({ config }) => config.id === sandbox.id)],
    ["stopped", []],
  );
  await sandbox.start();
  await sandbox.hibernate();
  await sandbox.delete({ force: true });
  await assert.rejects(sandbox.wake(), { reason: "SANDBOX_NOT_FOUND" });
});

test("idle: nobody wants anything of it, and it goes; a reader, a call or traffic keeps it", async (t) => {
  const { runtime, networks, sandbox, state } = await world(t, {
    idleTimeoutMs: 1_000,
    network: { mode: "user" },
  });
  const child = await sandbox.spawn(["run"]);
  const reading = child.status;
  await new Promise((resolve) => setTimeout(resolve, 1_600));
  assert.equal(await state(), "running", "somebody waits for a process");
  await child.signal(9);
  await reading;
  await until(async () => (await state()) === "hibernated", { what: "it hibernates" });
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  networks.nowPassing = { packets: 0, connections: 1 };
  await new Promise((resolve) => setTimeout(resolve, 1_600));
  assert.equal(await state(), "running", "a connection is open");
  networks.nowPassing = { packets: 5, connections: 0 };
  // What stands in the way is told, and it goes on.
  runtime.hypervisor.fail("saveDevices", new BelljarError("DISK_FULL", "no room"));
  await until(() => runtime.hypervisor.calls.filter((call) => call.startsWith("saveDevices")).length > 1, {
    what: "it tries",
  });
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  await until(async () => (await state()) === "hibernated", { what: "it hibernates after all" });
  // Its owner may change meanwhile: it is watched by the next one as soon as it wakes.
  await runtime.reopen();
  await (await runtime.core.sandboxes.get("web")).wake();
  await until(async () => (await state()) === "hibernated", { what: "it hibernates again" });
});

test("a published port is the same before and after, and a connection to it wakes", async (t) => {
  const { runtime, sandbox, networks, state } = await world(t, {
    network: { mode: "user", ports: [{ hostAddress: "127.0.0.1", containerPort: 80 }] },
  });
  // As the way in to the guest does, this answers at the sandbox's port while it has a network.
  const echo = createServer((socket) => socket.on("error", () => {}).pipe(socket));
  t.after(() => new Promise<void>((resolve) => echo.close(() => resolve())));
  const port = (await sandbox.info()).network?.ports[0]?.hostPort ?? 0;
  const { make } = networks;
  networks.make = async (network) => {
    await make.call(networks, network);
    if (!echo.listening) await new Promise<void>((resolve) => echo.listen(port, "127.0.0.1", resolve));
  };
  await sandbox.hibernate();
  assert.equal((await sandbox.info()).hibernation?.ports[0]?.hostPort, port);
  await runtime.reopen();
  const client = connect(port, "127.0.0.1");
  const answer = new Promise<string>((resolve, reject) => {
    client.once("data", (data) => resolve(data.toString()));
    client.once("error", reject);
  });
  client.write("hello");
  assert.equal(await answer, "hello");
  client.destroy();
  assert.equal(await state(), "running");
  const now = await (await runtime.core.sandboxes.get("web")).info();
  assert.equal(now.network?.ports[0]?.hostPort, port);
});

test("a hibernation that fails leaves a sandbox that runs; a wake that fails one that can be woken", async (t) => {
  const { runtime, sandbox, state, saved } = await world(t);
  const broken = (): BelljarError => new BelljarError("DISK_FULL", "no room");
  for (const call of ["openOverlays", "pause", "saveDevices", "useOverlays"] as const) {
    runtime.hypervisor.fail(call, broken());
    await assert.rejects(sandbox.hibernate(), { reason: "DISK_FULL" }, call);
    assert.equal(await state(), "running", call);
    assert.deepEqual(await saved(), [], call);
    assert.ok(!(await readdir(join(runtime.sandboxesDir, sandbox.id))).includes("saved"), call);
    assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n", call);
  }
  runtime.memory.failNext = broken();
  await assert.rejects(sandbox.hibernate(), { reason: "DISK_FULL" });
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  await sandbox.hibernate();
  for (const call of ["start", "resume"] as const) {
    runtime.hypervisor.fail(call, broken());
    await assert.rejects(sandbox.exec(["echo", "on"]), { reason: "DISK_FULL" }, call);
    assert.equal(await state(), "hibernated", call);
    assert.deepEqual(runtime.hypervisor.live, [], call);
  }
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
});

test("killed at any step: hibernating is undone until it is done, and a wake is finished", async (t) => {
  const points: readonly { readonly at: MemoryCall; readonly op: "hibernate" | "wake"; readonly fails: boolean }[] = [
    { at: "openOverlays", op: "hibernate", fails: true },
    { at: "pause", op: "hibernate", fails: true },
    { at: "saveDevices", op: "hibernate", fails: true },
    { at: "useOverlays", op: "hibernate", fails: true },
    { at: "kill", op: "hibernate", fails: false },
    { at: "start", op: "wake", fails: false },
    { at: "resume", op: "wake", fails: false },
  ];
  for (const { at, op, fails } of points) {
    const { runtime, sandbox, state, find, saved } = await world(t);
    const { hypervisor } = runtime;
    const dir = join(runtime.sandboxesDir, sandbox.id);
    const copy = join(t.dir, `copy-${at}-${op}`);
    if (op === "wake") await sandbox.hibernate();
    const seen = hypervisor.calls.length;
    const letGo = hypervisor.hold(at);
    if (fails) hypervisor.fail(at, new BelljarError("DISK_FULL", "no room"));
    const work = (op === "wake" ? sandbox.wake() : sandbox.hibernate()).catch(() => {});
    await until(() => hypervisor.calls.slice(seen).some((call) => call.startsWith(at)), {
      what: `${op} comes to ${at}`,
    });
    const status = hypervisor.vms.get(sandbox.id)?.status;
    await cp(dir, copy, { recursive: true });
    letGo();
    await work;
    await runtime.core.release();
    // What it was at that instant is what the next owner finds.
    await rm(dir, { recursive: true });
    await cp(copy, dir, { recursive: true });
    const vm = hypervisor.vms.get(sandbox.id);
    if (vm !== undefined && !vm.hasEnded && status !== undefined) vm.status = status;
    await runtime.reopen();
    if (op === "wake")
      await until(async () => (await state()) === "running", { what: `the wake after ${at} is finished` });
    else assert.equal(await state(), fails ? "running" : "hibernated", at);
    assert.equal((await (await find()).exec(["echo", "on"])).stdout, "on\n", at);
    await until(async () => (await saved()).length === 0, { what: `nothing is left after ${at}` });
    assert.equal(hypervisor.live.length, 1, at);
    await (await find()).delete({ force: true });
  }
});

test("killed when it had woken and nobody had written it down: what runs goes on", async (t) => {
  const { runtime, sandbox, state, find } = await world(t);
  const dir = join(runtime.sandboxesDir, sandbox.id);
  const copy = join(t.dir, "copy");
  await sandbox.hibernate();
  const letGo = runtime.hypervisor.hold("resume");
  const waking = sandbox.wake();
  await until(() => runtime.hypervisor.calls.some((call) => call === `resume ${sandbox.id}`), { what: "it resumes" });
  await until(async () => (await sandbox.info()).vmm !== undefined, { what: "its VM is written down" });
  await cp(dir, copy, { recursive: true });
  letGo();
  await waking;
  await runtime.core.release();
  await rm(dir, { recursive: true });
  await cp(copy, dir, { recursive: true });
  const starts = runtime.hypervisor.calls.filter((call) => call.startsWith("start ")).length;
  await runtime.reopen();
  assert.equal(await state(), "running");
  assert.equal((await (await find()).exec(["echo", "on"])).stdout, "on\n");
  assert.equal(runtime.hypervisor.calls.filter((call) => call.startsWith("start ")).length, starts);
});
