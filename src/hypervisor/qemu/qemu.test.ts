/** The hypervisor against QEMUs that misbehave. Real ones are in test/vm/qemu.test.ts. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { fakeQemu } from "../../../test/support/fake-qemu.ts";
import { type TestScope, tempDir, test } from "../../../test/support/harness.ts";
import { BelljarError, silentLog } from "../../base/index.ts";
import type { DiskConfig, Vm, VmConfig } from "../interface.ts";
import { createQemu, type QemuDeps } from "./qemu.ts";
import { QmpClient, tryConnect } from "./qmp.ts";

const disk: DiskConfig = { serial: "a", path: "/disk", format: "raw", readOnly: true };

interface Scene {
  readonly config: VmConfig;
  readonly deps: QemuDeps;
  /** Nothing of the VM is left in its run directory. */
  assertClean(): Promise<void>;
}

async function scene(t: TestScope, mode: string, deps: Partial<QemuDeps> = {}): Promise<Scene> {
  const runDir = await tempDir(t);
  const binary = await fakeQemu(t.dir, mode);
  return {
    config: {
      id: "0123456789ab",
      runDir,
      acceleration: "tcg",
      memoryMib: 128,
      cpus: 1,
      boot: { kernelPath: "/kernel", kernelArguments: [] },
      disks: [],
    },
    deps: { log: silentLog, binary, ...deps },
    assertClean: async () => assert.deepEqual(await readdir(runDir), []),
  };
}

async function started(t: TestScope, mode: string): Promise<Scene & { vm: Vm }> {
  const made = await scene(t, mode);
  const vm = await createQemu(made.deps).start(made.config);
  t.after(() => vm.kill());
  return { ...made, vm };
}

async function failure(work: Promise<unknown>, reason: string): Promise<BelljarError> {
  const error = await work.then(
    () => assert.fail(`nothing failed; ${reason} was expected`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof BelljarError, String(error));
  assert.equal(error.reason, reason, error.message);
  return error;
}

test("a QEMU that does not know the time says of no VM how long it stood still", async (t) => {
  const { vm } = await started(t, "no-clock");
  assert.equal(await vm.resume(), undefined, "it was never told to have stopped");
  await vm.pause();
  assert.equal(await vm.resume(), undefined);
});

test("a VM starts, pauses, goes on, and ends when it is killed", async (t) => {
  const { vm, assertClean } = await started(t, "good");
  assert.equal((await vm.info()).status, "running");
  const askedAtMs = performance.now();
  await vm.pause();
  const stoppingMs = performance.now() - askedAtMs;
  assert.equal((await vm.info()).status, "paused");
  const stillMs = (await vm.resume()) ?? 0;
  assert.ok(stillMs > 12.5 && stillMs <= 12.5 + stoppingMs, `${stillMs}, of which ${stoppingMs} until it had stopped`);
  assert.equal(await vm.resume(), undefined, "it ran already");
  await vm.check();
  await vm.kill();
  assert.deepEqual(await vm.ended, { cause: "requested" });
  assert.equal((await vm.info()).status, "ended");
  await vm.kill();
  await assertClean();
  await failure(vm.check(), "VMM_DIED");
});

test("QEMU is absent", async (t) => {
  const { config, deps, assertClean } = await scene(t, "good");
  const qemu = createQemu({ ...deps, binary: "no-such-qemu" });
  const error = await failure(qemu.start(config), "VMM_MISSING");
  assert.match(error.message, /no-such-qemu/);
  await failure(qemu.info(), "VMM_MISSING");
  await assertClean();
});

for (const mode of ["too-old", "too-old-dies"]) {
  test(`QEMU is too old: ${mode}`, async (t) => {
    const { config, deps, assertClean } = await scene(t, mode);
    const qemu = createQemu(deps);
    for (const work of [() => qemu.start(config), () => qemu.info()]) {
      const error = await failure(work(), "VMM_TOO_OLD");
      assert.deepEqual(error.facts, { version: "6.2.0", oldestVersion: "7.2" });
    }
    await assertClean();
  });
}

test("QEMU dies at the start: its words are in the error, harmless", async (t) => {
  const { config, deps, assertClean } = await scene(t, "dies");
  const { message } = await failure(createQemu(deps).start(config), "VMM_START_FAILED");
  assert.match(message, /ended with status 1 while it was starting/);
  assert.match(message, /broken firmware: gnp\.exe; qemu-system-x86_64: giving up$/);
  assert.doesNotMatch(message, /[^\P{C}]/u);
  await assertClean();
});

test("the host refuses the memory", async (t) => {
  const { config, deps, assertClean } = await scene(t, "no-memory");
  await failure(createQemu(deps).start(config), "NOT_ENOUGH_MEMORY");
  await assertClean();
});

test("the host has not the memory: nothing is started", async (t) => {
  const { config, deps, assertClean } = await scene(t, "dies", { availableMemoryMib: async () => 100 });
  const error = await failure(createQemu(deps).start(config), "NOT_ENOUGH_MEMORY");
  assert.deepEqual(error.facts, { wantedMib: 192, availableMib: 100 });
  await assertClean();
});

for (const mode of ["never-listens", "never-greets"]) {
  test(`QEMU never answers: ${mode}`, async (t) => {
    const { config, deps, assertClean } = await scene(t, mode, { startTimeoutMs: 700 });
    const error = await failure(createQemu(deps).start(config), "VMM_START_FAILED");
    assert.equal(error.facts["timeoutMs"], 700);
    await assertClean();
  });

  test(`a start is cancelled: ${mode}`, async (t) => {
    const { config, deps, assertClean } = await scene(t, mode);
    const controller = new AbortController();
    const start = createQemu(deps).start(config, { signal: controller.signal });
    setTimeout(() => controller.abort(), 300);
    await failure(start, "CANCELLED");
    await assertClean();
  });
}

test("QMP: whoever has given up before the greeting came does not wait for it", async (t) => {
  const path = join(await tempDir(t), "qmp");
  const server = createServer((socket) => socket.on("error", () => {}));
  t.after(() => new Promise((resolve) => server.close(resolve)));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = await tryConnect(path);
  assert.ok(socket !== undefined);
  const qmp = new QmpClient(socket);
  await assert.rejects(qmp.handshake({ signal: AbortSignal.abort() }), { reason: "CANCELLED" });
  qmp.close();
});

test("a start that is cancelled already starts nothing", async (t) => {
  const { config, deps, assertClean } = await scene(t, "good");
  await failure(createQemu(deps).start(config, { signal: AbortSignal.abort() }), "CANCELLED");
  await assertClean();
});

for (const mode of ["garbage", "flood"]) {
  test(`QEMU does not speak QMP: ${mode}`, async (t) => {
    const { config, deps, assertClean } = await scene(t, mode);
    const { message } = await failure(createQemu(deps).start(config), "VMM_PROTOCOL");
    assert.doesNotMatch(message, /[^\P{C}]/u);
    await assertClean();
  });
}

test("QEMU breaks the protocol later: every call fails, and the VM can be killed", async (t) => {
  const { vm, assertClean } = await started(t, "garbage-later");
  await failure(vm.check(), "VMM_PROTOCOL");
  await failure(vm.pause(), "VMM_PROTOCOL");
  await vm.kill();
  await assertClean();
});

test("QEMU dies later: the error and the end have its last words", async (t) => {
  const { vm, assertClean } = await started(t, "dies-later");
  const { message } = await failure(vm.pause(), "VMM_DIED");
  const words = "QEMU ended with status 3; qemu-system-x86_64: a wild pointer; qemu-system-x86_64: this is the end";
  assert.equal(message, words);
  assert.deepEqual(await vm.ended, { cause: "died", detail: words });
  await vm.kill();
  assert.equal((await vm.ended).cause, "died");
  await assertClean();
});

test("QEMU is killed from outside", async (t) => {
  const { vm, assertClean } = await started(t, "good");
  process.kill((await vm.info()).pid, "SIGKILL");
  assert.deepEqual(await vm.ended, { cause: "died", detail: "QEMU was ended by SIGKILL" });
  await assertClean();
});

test("the guest's kernel panics", async (t) => {
  const { vm, assertClean } = await started(t, "panics");
  const detail = "[ 1.0] Kernel panic - not syncing: no root";
  assert.deepEqual(await vm.ended, { cause: "guest", panic: true, detail });
  await assertClean();
});

for (const [mode, detail] of [
  ["powers-off", "the guest powered itself off"],
  ["resets", "the guest reset itself"],
] as const) {
  test(`the guest ends by itself: ${mode}`, async (t) => {
    const { vm } = await started(t, mode);
    assert.deepEqual(await vm.ended, { cause: "guest", panic: false, detail });
  });
}

test("a VM whose QEMU no longer answers is killed all the same", async (t) => {
  const { vm, assertClean } = await started(t, "deaf-later");
  // With a disk to write to, `quit` is tried first.
  await vm.plugDisk({ ...disk, readOnly: false });
  await vm.kill();
  assert.deepEqual(await vm.ended, { cause: "requested" });
  await assertClean();
});

test("a disk that QEMU refuses is taken back", async (t) => {
  const { vm } = await started(t, "refuses-disks");
  const error = await failure(vm.plugDisk(disk), "VMM_PROTOCOL");
  assert.match(error.message, /device_add: no room on the bus.*blockdev-del$/);
  assert.equal(error.facts["qmpClass"], "GenericError");
  assert.deepEqual(vm.save().disks, []);
});

test("disks come and go, two at once get two slots", async (t) => {
  const { vm } = await started(t, "good");
  await Promise.all([vm.plugDisk(disk), vm.plugDisk({ ...disk, serial: "b" })]);
  assert.deepEqual(
    vm.save().disks.map(({ serial, slot }) => [serial, slot]),
    [
      ["a", 0],
      ["b", 1],
    ],
  );
  await vm.unplugDisk("a");
  await vm.plugDisk({ ...disk, serial: "c" });
  assert.deepEqual(
    vm
      .save()
      .disks.map(({ serial, slot }) => `${serial}${slot}`)
      .sort(),
    ["b1", "c0"],
  );
  await failure(vm.plugDisk({ ...disk, serial: "c" }), "INVALID_ARGUMENT");
  await failure(vm.unplugDisk("a"), "INVALID_ARGUMENT");
});

test("a disk that is there only in part, or not at all, is taken away all the same", async (t) => {
  for (const mode of ["half-a-disk", "no-disk"]) {
    const { vm } = await started(t, mode);
    await vm.plugDisk(disk);
    await vm.unplugDisk("a");
    assert.deepEqual(vm.save().disks, []);
    await vm.kill();
  }
  const { vm } = await started(t, "busy-disk");
  await vm.plugDisk(disk);
  await failure(vm.unplugDisk("a"), "VMM_PROTOCOL");
});

test("device state is not saved of a running VM, nor of one with a device that cannot", async (t) => {
  const path = join(t.dir, "devices");
  const { vm: blocked } = await started(t, "blocked");
  const error = await failure(blocked.prepareDevices(path), "NOT_CHECKPOINTABLE");
  assert.deepEqual(error.facts["blockers"], ["device 'x' has no state"]);
  assert.ok(!(await readdir(t.dir)).includes("devices"));
  const { vm: running } = await started(t, "good");
  await running.prepareDevices(path);
  await failure(running.saveDevices(path), "INVALID_TRANSITION");
  assert.ok(!(await readdir(t.dir)).includes("devices"));
});

test("a save that writes nothing is an error and leaves no file", async (t) => {
  const { vm } = await started(t, "good");
  const path = join(t.dir, "devices");
  await vm.prepareDevices(path);
  await vm.pause();
  await failure(vm.saveDevices(path), "VMM_PROTOCOL");
  assert.ok(!(await readdir(t.dir)).includes("devices"));
});

test("a VM that was let go runs on, and can be taken over", async (t) => {
  const { config, deps, assertClean } = await scene(t, "good");
  const vm = await createQemu(deps).start(config);
  const state = vm.save();
  await vm.release();
  await failure(vm.pause(), "INVALID_TRANSITION");
  const again = await createQemu(deps).attach(state);
  t.after(() => again.kill());
  assert.equal((await again.info()).status, "running");
  await again.kill();
  assert.deepEqual(await again.ended, { cause: "requested" });
  await assertClean();
  await failure(createQemu(deps).attach(state), "VMM_DIED");
});
