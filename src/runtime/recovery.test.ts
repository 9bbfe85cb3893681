import assert from "node:assert/strict";
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { newId, sandboxLimits } from "../base/index.ts";
import { type ContainerState, containerSandboxSchema } from "../container/index.ts";
import { Sandbox, type SandboxState } from "../sandbox/index.ts";
import { acquireLock, encodeEnvelope, StateFile } from "../store/index.ts";
import { sandboxDeps } from "./create-sandbox.ts";
import type { SandboxHandle } from "./interface.ts";

type State = SandboxState<ContainerState>;

/** What a killed owner has left in the state file. */
async function rewrite(world: MemoryRuntime, id: string, change: (state: State) => State): Promise<void> {
  await world.core.release();
  const file = new StateFile(world.stateFile(id), containerSandboxSchema, world.deps.disk);
  await file.read();
  await file.update(change);
}

const onMain = (state: State, change: Partial<ContainerState>): State => ({
  ...state,
  containers: state.containers.map((each, index) => (index === 0 ? { ...each, ...change } : each)),
});

async function pair(
  t: Parameters<typeof MemoryRuntime.open>[0],
): Promise<{ world: MemoryRuntime; sandbox: SandboxHandle }> {
  const world = await MemoryRuntime.open(t);
  return { world, sandbox: await world.core.sandboxes.create({ image: "busybox", name: "web" }) };
}

const again = (world: MemoryRuntime): Promise<SandboxHandle> => world.core.sandboxes.get("web");

test("recovery: running and paused sandboxes are live again, and nothing in them has noticed", async (t) => {
  const { world, sandbox } = await pair(t);
  const child = await sandbox.spawn(["run"]);
  const frozen = await sandbox.containers.create({ image: "busybox", name: "frozen" });
  await frozen.start();
  await frozen.pause();
  const { pid } = await sandbox.main.info();
  await world.reopen();
  const found = await again(world);
  assert.equal((await found.main.info()).pid, pid);
  assert.equal((await found.exec(["echo", "on"])).stdout, "on\n");
  assert.equal((await (await found.containers.get("frozen")).info()).state, "paused");
  await (await found.main.process(child.id)).signal(9);
  assert.equal((await (await found.main.process(child.id)).status).signal, 9);

  await found.pause();
  await world.reopen();
  const paused = await again(world);
  assert.equal((await paused.info()).state, "paused");
  await paused.resume();
  assert.equal((await (await paused.containers.get("frozen")).info()).state, "paused");
  assert.equal((await paused.main.info()).state, "running");
  assert.deepEqual(
    world.core.recovered.map(({ kind, what }) => [kind, what]),
    [["sandbox", "live"]],
  );
});

test("recovery: what ended meanwhile is known, its output is whole", async (t) => {
  const { world, sandbox } = await pair(t);
  const init = world.guests.guest(sandbox.id).container(sandbox.main.id).init;
  init?.write(1, "before ");
  await world.core.release();
  init?.write(1, "meanwhile");
  init?.exit(9);
  await world.reopen();
  const found = await again(world);
  assert.equal((await found.main.wait()).exitCode, 9);
  let text = "";
  for await (const { data } of found.main.logs({ follow: true })) text += Buffer.from(data).toString();
  assert.equal(text, "before meanwhile");
});

test("recovery: a VM that is gone is a stopped sandbox with its cause, and can be started", async (t) => {
  const { world, sandbox } = await pair(t);
  await world.core.release();
  world.guests.guest(sandbox.id).vm.end({ cause: "died", detail: "SIGKILL" });
  await world.reopen();
  const found = await again(world);
  const info = await found.info();
  assert.equal(info.state, "stopped");
  assert.equal(info.end?.reason, "VMM_DIED");
  assert.equal(info.containers[0]?.end?.reason, "VMM_DIED");
  await found.start();
  assert.equal((await found.exec(["echo", "on"])).stdout, "on\n");
});

test("recovery: a guest whose agent started anew is ended; one that answers too late is waited for", async (t) => {
  const { world, sandbox } = await pair(t);
  await world.core.release();
  world.guests.guest(sandbox.id).instance = "another";
  await world.reopen();
  assert.equal((await (await again(world)).info()).end?.reason, "AGENT_FAILED");
  await (await again(world)).start();
  await world.core.release();
  const answer = world.guests.hold("listContainers");
  const startMs = performance.now();
  await world.reopen();
  assert.ok(performance.now() - startMs < 5_000);
  assert.match((await (await again(world)).info()).problem ?? "", /agent does not answer/);
  answer();
  await until(async () => (await (await again(world)).info()).problem === undefined, { what: "it is recovered" });
  assert.equal((await (await again(world)).exec(["echo", "on"])).stdout, "on\n");
});

test("recovery: what was half created is undone, half deleted or half stopped is finished", async (t) => {
  for (const operation of ["create", "delete"] as const) {
    const { world, sandbox } = await pair(t);
    await rewrite(world, sandbox.id, (state) => ({ ...state, pending: { operation, sinceMs: 1 } }));
    await world.reopen();
    assert.deepEqual(await world.core.sandboxes.list(), []);
    assert.deepEqual(world.hypervisor.live, []);
    assert.deepEqual(await readdir(world.sandboxesDir), []);
    assert.deepEqual(await readdir(world.deps.runDir), []);
  }
  const { world, sandbox } = await pair(t);
  await rewrite(world, sandbox.id, (state) => ({ ...state, pending: { operation: "stop", sinceMs: 1 } }));
  await world.reopen();
  const info = await (await again(world)).info();
  assert.equal(info.state, "stopped");
  assert.equal(info.end, undefined);
  assert.equal(info.containers[0]?.state, "stopped");
  assert.deepEqual(world.hypervisor.live, []);
});

test("recovery: a pause, resume or start that was cut short is what the VM and the guest say", async (t) => {
  for (const operation of ["pause", "resume"] as const) {
    for (const status of ["running", "paused"] as const) {
      const { world, sandbox } = await pair(t);
      if (operation === "resume") await sandbox.pause();
      await rewrite(world, sandbox.id, (state) => ({ ...state, pending: { operation, sinceMs: 1 } }));
      const { vm } = world.guests.guest(sandbox.id);
      if (status === "paused" && vm.status === "running") await vm.handle().pause();
      if (status === "running" && vm.status === "paused") await vm.handle().resume();
      await world.reopen();
      const found = await again(world);
      const info = await found.info();
      assert.deepEqual([info.state, info.containers[0]?.state], [status, status], operation);
      if (status === "paused") await found.resume();
      assert.equal((await found.exec(["echo", "on"])).stdout, "on\n");
    }
  }
  // Of a stopped sandbox: the VM had come up, its container had not, or was there and not started.
  for (const inGuest of [false, true]) {
    const { world, sandbox } = await pair(t);
    await rewrite(world, sandbox.id, (state) => ({
      ...onMain(state, { state: "stopped", inGuest }),
      state: "stopped",
      pending: { operation: "start", sinceMs: 1 },
    }));
    const { containers } = world.guests.guest(sandbox.id);
    if (inGuest) for (const container of containers.values()) container.processes.clear();
    else containers.clear();
    await world.reopen();
    const info = await (await again(world)).info();
    assert.deepEqual([info.state, info.containers[0]?.state], ["stopped", "stopped"]);
    await (await again(world)).start();
  }
});

test("recovery: a start that was cut short before anything had started has not happened", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await world.core.sandboxes.create({ image: "busybox", name: "web" }, { start: false });
  await rewrite(world, sandbox.id, (state) => ({
    ...state,
    state: "running",
    pending: { operation: "start", sinceMs: 1 },
  }));
  await world.reopen();
  const found = await again(world);
  const info = await found.info();
  assert.deepEqual([info.state, info.containers[0]?.state], ["ready", "ready"]);
  await found.start();
  assert.equal((await found.exec(["echo", "on"])).stdout, "on\n");
});

test("recovery: containers that were half made, half started, half stopped or half deleted", async (t) => {
  const { world, sandbox } = await pair(t);
  const second = await sandbox.containers.create({ image: "busybox", name: "second" });
  const layers = world.guests.guest(sandbox.id).vm.disks.length;
  for (const operation of ["create", "delete"] as const) {
    const gone = await (await again(world)).containers.create({ image: "busybox", name: operation });
    await rewrite(world, sandbox.id, (state) => ({
      ...state,
      containers: state.containers.map((each) =>
        each.id === gone.id ? { ...each, inGuest: operation === "delete", pending: { operation, sinceMs: 1 } } : each,
      ),
    }));
    await world.reopen();
    assert.equal((await (await again(world)).containers.list()).length, 2);
    assert.equal(world.guests.guest(sandbox.id).vm.disks.length, layers);
    assert.equal(world.guests.guest(sandbox.id).containers.has(gone.id), false);
  }
  // Started in the guest, and its owner died before it could say so.
  world.guests.guest(sandbox.id).start(second.id, "", ["run"], { terminal: false, stdin: false });
  await rewrite(world, sandbox.id, (state) => ({
    ...state,
    containers: state.containers.map((each) =>
      each.id === second.id ? { ...each, pending: { operation: "start", sinceMs: 1 } } : each,
    ),
  }));
  await world.reopen();
  const started = await (await again(world)).containers.get("second");
  assert.equal((await started.info()).state, "running");
  assert.equal((await started.attach()).containerId, second.id);
  await rewrite(world, sandbox.id, (state) => ({
    ...state,
    containers: state.containers.map((each) =>
      each.id === second.id ? { ...each, pending: { operation: "stop", sinceMs: 1 } } : each,
    ),
  }));
  await world.reopen();
  assert.equal((await (await (await again(world)).containers.get("second")).info()).state, "stopped");
  assert.equal((await (await again(world)).main.info()).state, "running");
});

test("recovery: what belongs to nobody is removed; what cannot be read is told and left, the others go on", async (t) => {
  const { world } = await pair(t);
  const damaged = newId();
  const newer = newId();
  const removed = newId();
  const orphan = newId();
  const readable = world.deps.disk;
  assert.ok(readable);
  await world.core.release();
  const state = Buffer.from(await readable.read(world.stateFile((await readdir(world.sandboxesDir))[0] ?? ""), 1e6));
  for (const id of [damaged, newer]) await mkdir(join(world.sandboxesDir, id, "disks"), { recursive: true });
  const put = async (id: string, bytes: Uint8Array): Promise<void> => {
    const file = await readable.create(world.stateFile(id), 0o600);
    await file.write(bytes);
  };
  await put(damaged, state.subarray(0, state.length - 20));
  await put(newer, encodeEnvelope({ kind: "sandbox", version: 99, sequence: 1 }, {}));
  await mkdir(join(world.sandboxesDir, removed));
  await writeFile(join(world.sandboxesDir, removed, "lock"), "");
  await mkdir(join(world.sandboxesDir, `.new-${newId()}`));
  await mkdir(join(world.deps.runDir, orphan));
  await mkdir(join(world.deps.runDir, damaged));
  await mkdir(join(world.sandboxesDir, "lost+found"));
  await writeFile(join(world.deps.runDir, "not-ours"), "");
  await world.reopen();
  const kinds = world.core.recovered.map(({ kind, name }) => `${kind} ${name}`);
  for (const expected of [
    `unreadable ${damaged}`,
    `unreadable ${newer}`,
    `unfinished ${removed}`,
    `sockets ${orphan}`,
  ]) {
    assert.ok(kinds.includes(expected), `${expected} in ${kinds.join(", ")}`);
  }
  assert.deepEqual((await readdir(world.deps.runDir)).includes(damaged), true);
  const infos = await world.core.sandboxes.list();
  assert.equal(infos.length, 3);
  assert.equal(infos.filter(({ problem }) => problem !== undefined).length, 2);
  await assert.rejects(world.core.sandboxes.get(damaged), { reason: "STATE_CORRUPT" });
  await assert.rejects(world.core.sandboxes.get(newer), { reason: "STATE_VERSION" });
  assert.equal((await (await again(world)).exec(["echo", "on"])).stdout, "on\n");
  assert.deepEqual(await readable.read(world.stateFile(damaged), 1e6), state.subarray(0, state.length - 20));
  await rm(join(world.sandboxesDir, "lost+found"), { recursive: true });
});

test("recovery: a sandbox that is read elsewhere is read too; one that is being changed is told as locked", async (t) => {
  const world = await MemoryRuntime.open(t, { lock: acquireLock });
  const { id } = await world.core.sandboxes.create({ image: "busybox", name: "web" });
  const lock = (mode: "shared" | "exclusive") =>
    acquireLock(join(world.sandboxesDir, id, "lock"), { mode, timeoutMs: 0, what: "the sandbox" });
  const read = async (): Promise<void> => (await Sandbox.restore(sandboxDeps(world.deps), id)).release();
  await world.core.release();
  {
    await using _reader = await lock("shared");
    await read();
  }
  const changer = await lock("exclusive");
  await assert.rejects(read(), { reason: "LOCKED" });
  await world.reopen();
  assert.match((await world.core.sandboxes.list())[0]?.problem ?? "", /another process/);
  await assert.rejects(again(world), { reason: "SANDBOX_NOT_FOUND" });
  await assert.rejects(world.core.sandboxes.get(id), { reason: "LOCKED" });
  assert.equal(world.hypervisor.live.length, 1);
  await world.core.release();
  const opening = world.reopen();
  await changer.release();
  await opening;
  assert.equal((await (await again(world)).exec(["echo", "on"])).stdout, "on\n");
});

test("recovery: one at rest is neither locked nor written anew, loses what it slept in, and starts again", async (t) => {
  const { world, sandbox } = await pair(t);
  await sandbox.stop();
  const { id } = sandbox;
  await world.core.release();
  const written = world.stateFile(id);
  const before = await world.deps.disk?.read(written, 1e6);
  const saved = join(world.sandboxesDir, id, "saved");
  await mkdir(join(saved, "one"), { recursive: true });
  const locked: string[] = [];
  const { lock = acquireLock } = world.deps;
  Object.assign(world.deps, {
    lock: ((path, options) => {
      locked.push(path);
      return lock(path, options);
    }) satisfies typeof acquireLock,
  });
  const { recovered } = await world.reopen();
  assert.deepEqual(recovered, []);
  assert.deepEqual(locked, [join(world.deps.rootDir, "lock")]);
  assert.deepEqual(await world.deps.disk?.read(written, 1e6), before);
  await assert.rejects(stat(saved), { code: "ENOENT" });
  const found = await again(world);
  await found.start();
  assert.equal((await found.exec(["echo", "on"])).stdout, "on\n");
  assert.equal(locked.includes(join(world.sandboxesDir, id, "lock")), true);
});

test("recovery: a process that the guest was still starting is found when it is asked for", async (t) => {
  const { world, sandbox } = await pair(t);
  await world.reopen();
  const found = await again(world);
  // Its owner died over the call, and the guest was slower than the next owner.
  world.guests.guest(sandbox.id).start(found.main.id, "0123456789ab", ["run"], { terminal: false, stdin: false });
  const child = await found.main.process("0123456789ab");
  await child.signal(9);
  assert.equal((await child.status).signal, 9);
  await child.release();
  await assert.rejects(found.main.process("0123456789ab"), { reason: "PROCESS_NOT_FOUND" });
});

test("recovery: a container of the guest that no state knows is taken out of it", async (t) => {
  const { world, sandbox } = await pair(t);
  const guest = world.guests.guest(sandbox.id);
  const known = guest.container(sandbox.main.id);
  await world.core.release();
  const stranger = newId();
  guest.createContainer({ ...known.request, containerId: stranger });
  await world.reopen();
  assert.deepEqual([...guest.containers.keys()], [known.id]);
});

test("the root: one owner at a time, and the other is told whom to ask", async (t) => {
  const { world } = await pair(t);
  const { openRuntime } = await import("./open.ts");
  await assert.rejects(openRuntime(world.deps), { reason: "ROOT_LOCKED", remedy: /daemon/ });
});

test("recovery: a sandbox that removes itself is removed, however far it had come", async (t) => {
  for (const state of ["stopped", "running"] as const) {
    const world = await MemoryRuntime.open(t);
    const sandbox = await world.core.sandboxes.create({ image: "busybox", autoRemove: true, stopWithMain: true });
    const guest = world.guests.guest(sandbox.id);
    await world.core.release();
    if (state === "running") guest.container([...guest.containers.keys()][0] ?? "").init?.exit(0);
    else
      await rewrite(world, sandbox.id, (now) => ({ ...onMain(now, { state, inGuest: false }), state, vm: undefined }));
    if (state === "stopped") guest.vm.end({ cause: "requested" });
    await world.reopen();
    const what = `it is gone, from ${state}`;
    await until(async () => (await world.core.sandboxes.list()).length === 0, { what });
    assert.deepEqual(world.hypervisor.live, []);
  }
});

test("recovery: agents that are slow do not all work at once, hold nobody up for ever, and each is recovered in the end", async (t) => {
  const world = await MemoryRuntime.open(t);
  const count = availableParallelism() * sandboxLimits.recoveryAgentsPerCpu + 2;
  for (let made = 0; made < count; made += 1) await world.core.sandboxes.create({ image: "busybox" });
  await world.core.release();
  const release = world.guests.hold("listContainers");
  world.guests.calls.length = 0;
  const asked = (): number => world.guests.calls.filter((call) => call.startsWith("configureSandbox")).length;
  const reopening = world.reopen();
  await until(() => asked() === count - 2);
  await reopening;
  const problems = async (): Promise<number> =>
    (await world.core.sandboxes.list()).filter(({ problem }) => problem !== undefined).length;
  assert.equal(await problems(), count);
  // One whose turn has not come is used all the same.
  const [first] = await world.core.sandboxes.list();
  assert.equal((await (await world.core.sandboxes.get(first?.id ?? "")).exec(["echo", "on"])).stdout, "on\n");
  release();
  await until(async () => (await problems()) === 0);
});

test("recovery: a VMM that answers too late is waited for, and told as silent until then", async (t) => {
  const { world } = await pair(t);
  await world.core.release();
  const answer = world.hypervisor.hold("attach");
  await world.reopen();
  assert.match((await (await again(world)).info()).problem ?? "", /VMM does not answer/);
  await assert.rejects((await again(world)).exec(["echo", "on"]), { reason: "VMM_SILENT" });
  answer();
  await until(async () => (await (await again(world)).info()).problem === undefined, { what: "it is recovered" });
  assert.equal((await (await again(world)).exec(["echo", "on"])).stdout, "on\n");
  assert.deepEqual(world.hypervisor.calls.filter((call) => call.startsWith("attach")).length, 1);
});
