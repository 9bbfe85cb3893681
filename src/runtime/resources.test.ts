import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { BelljarError } from "../base/index.ts";
import type { RuntimeDeps } from "./deps.ts";
import type { SandboxCreateConfig, SandboxHandle } from "./interface.ts";

const MIB = 1024 * 1024;

/** Under which a VM may grow by CPUs that nobody has asked for. */
const kvm: Partial<RuntimeDeps> = {
  acceleration: { resolve: async () => ({ acceleration: "kvm", explanation: "fixed", remembered: false }) },
};

const create = (world: MemoryRuntime, config: Partial<SandboxCreateConfig> = {}): Promise<SandboxHandle> =>
  world.core.sandboxes.create({ image: "busybox", ...config });

async function size(sandbox: SandboxHandle): Promise<string> {
  const { memoryMib, cpus, resources } = await sandbox.info();
  return `${memoryMib} of ${resources?.memoryAskedMib} MiB, ${cpus} of ${resources?.cpusAsked} CPUs`;
}

test("the VM is made for its first container, and grows and shrinks with the others", async (t) => {
  const world = await MemoryRuntime.open(t, kvm);
  await using sandbox = await create(world, { container: { limits: { memoryBytes: 100 * MIB } } });
  assert.equal(await size(sandbox), "356 of 356 MiB, 1 of 1 CPUs");
  assert.equal(world.hypervisor.vms.get(sandbox.id)?.config.memoryMib, 356, "as it booted");
  const limits = { memoryBytes: 200 * MIB, cpus: 1.5 };
  const second = await sandbox.containers.create({ image: "busybox", name: "b", limits });
  assert.equal(await size(sandbox), "556 of 556 MiB, 3 of 3 CPUs");
  assert.deepEqual(world.guests.guest(sandbox.id).fits.at(-1), { cpus: 3, pluggedMib: 200 });
  await second.start();
  await second.stop({ timeoutMs: 0 });
  assert.equal(await size(sandbox), "356 of 356 MiB, 1 of 1 CPUs", "what has stopped needs nothing");
  await second.start();
  assert.equal(await size(sandbox), "556 of 556 MiB, 3 of 3 CPUs");
  await second.update({ memoryBytes: 300 * MIB, cpus: 0 });
  assert.equal(await size(sandbox), "656 of 656 MiB, 1 of 1 CPUs");
  await second.delete({ force: true });
  assert.equal(await size(sandbox), "356 of 356 MiB, 1 of 1 CPUs");
  await sandbox.stop({ timeoutMs: 0 });
  await sandbox.start();
  assert.equal(await size(sandbox), "356 of 356 MiB, 1 of 1 CPUs");
});

test("a VM that somebody sized only grows for a container that would not fit", async (t) => {
  const world = await MemoryRuntime.open(t, kvm);
  await using sandbox = await create(world, {
    memoryMib: 512,
    cpus: 2,
    container: { limits: { memoryBytes: 64 * MIB } },
  });
  assert.equal(await size(sandbox), "512 of 512 MiB, 2 of 2 CPUs");
  await sandbox.main.update({ memoryBytes: 512 * MIB, cpus: 2, cpuset: "" });
  assert.equal(await size(sandbox), "512 of 512 MiB, 2 of 2 CPUs");
  await sandbox.main.update({ memoryBytes: 600 * MIB, cpus: 2.5 });
  assert.equal(await size(sandbox), "738 of 738 MiB, 3 of 3 CPUs");
  await sandbox.main.update({ memoryBytes: 0, cpus: 0 });
  assert.equal(await size(sandbox), "512 of 512 MiB, 2 of 2 CPUs");
});

test("growth that fails leaves VM, limits and containers as they were", async (t) => {
  const world = await MemoryRuntime.open(t, kvm);
  await using sandbox = await create(world);
  const vm = world.hypervisor.vms.get(sandbox.id);
  const guest = world.guests.guest(sandbox.id);
  const before = await size(sandbox);
  const refused: readonly (() => void)[] = [
    () => world.hypervisor.fail("resize", new BelljarError("NOT_ENOUGH_MEMORY", "the host has none")),
    () => world.guests.fault("fitResources", { kind: "fail", error: new BelljarError("AGENT_FAILED", "no driver") }),
    () => Object.assign(guest, { refusesMemory: true }),
    () => Object.assign(vm ?? {}, { takes: () => ({ memoryMib: 300, cpus: 1 }) }),
  ];
  for (const refuse of refused) {
    refuse();
    await assert.rejects(sandbox.main.update({ memoryBytes: 100 * MIB }), (error: BelljarError) =>
      ["NOT_ENOUGH_MEMORY", "AGENT_FAILED", "RESIZE_REFUSED"].includes(error.reason),
    );
    await assert.rejects(
      (async () => {
        refuse();
        await sandbox.containers.create({ image: "busybox", limits: { memoryBytes: 100 * MIB } });
      })(),
    );
    Object.assign(guest, { refusesMemory: false });
    if (vm !== undefined) vm.takes = (wanted) => wanted;
    await sandbox.main.update({ pids: 10 });
    assert.equal(await size(sandbox), before);
    assert.equal((await sandbox.main.info()).limits.memoryBytes, undefined);
    assert.equal((await sandbox.containers.list()).length, 1);
  }
});

test("a sandbox is resized as a whole, and keeps to that", async (t) => {
  const world = await MemoryRuntime.open(t, kvm);
  await using sandbox = await create(world, { memoryMaxMib: 1024, sharedMemoryBytes: MIB });
  await sandbox.update({ memoryMib: 640, cpus: 2, sharedMemoryBytes: 2 * MIB });
  assert.equal(await size(sandbox), "640 of 640 MiB, 2 of 2 CPUs");
  assert.equal(world.guests.guest(sandbox.id).configured.at(-1)?.sharedMemoryBytes, BigInt(2 * MIB));
  await sandbox.main.update({ memoryBytes: 64 * MIB });
  assert.equal(await size(sandbox), "640 of 640 MiB, 2 of 2 CPUs");
  await sandbox.update({ memoryMib: 300 });
  assert.equal(await size(sandbox), "300 of 300 MiB, 2 of 2 CPUs");
  await assert.rejects(sandbox.update({ memoryMib: 2048 }), { reason: "INVALID_ARGUMENT", remedy: /256 to 1024/ });
  await assert.rejects(sandbox.update({ memoryMib: 128 }), { reason: "INVALID_ARGUMENT", remedy: /stop the sandbox/ });
  await assert.rejects(sandbox.update({ cpus: 0 }), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(sandbox.update({ sharedMemoryBytes: 0.5 }), { reason: "INVALID_ARGUMENT" });
  await sandbox.pause();
  await assert.rejects(sandbox.update({ memoryMib: 512 }), { reason: "INVALID_TRANSITION" });
  await sandbox.resume();
  assert.equal(world.guests.guest(sandbox.id).configured.at(-1)?.sharedMemoryBytes, BigInt(2 * MIB));
  await sandbox.stop({ timeoutMs: 0 });
  await sandbox.update({ memoryMib: 2048, cpus: 1 });
  await sandbox.start();
  assert.equal(await size(sandbox), "2048 of 2048 MiB, 1 of 1 CPUs");
});

test("an emulated VM has as many CPUs at most as were asked for", async (t) => {
  const world = await MemoryRuntime.open(t);
  await using plain = await create(world, { container: { limits: { cpus: 0.5 } } });
  assert.equal(await size(plain), "256 of 256 MiB, 2 of 2 CPUs", "started with what is needed");
  await assert.rejects(plain.main.update({ cpus: 3 }), { reason: "INVALID_ARGUMENT", remedy: /at most 2 CPUs/ });
  await using prepared = await create(world, { cpusMax: 4 });
  await prepared.update({ cpus: 4 });
  assert.equal(await size(prepared), "256 of 256 MiB, 4 of 4 CPUs");
});

test("a guest that does not give back is told of, and the VM stays as large as it was", async (t) => {
  const world = await MemoryRuntime.open(t, kvm);
  await using sandbox = await create(world);
  await sandbox.update({ memoryMib: 512 });
  const vm = world.hypervisor.vms.get(sandbox.id);
  assert.ok(vm !== undefined);
  vm.takes = (wanted, before) => ({ ...wanted, memoryMib: Math.max(wanted.memoryMib, before.memoryMib - 100) });
  await assert.rejects(sandbox.update({ memoryMib: 256 }), {
    reason: "RESIZE_REFUSED",
    message: /from 512 MiB and 1 CPUs to 256 MiB and 1 CPUs it came as far as 412 MiB/,
  });
  assert.equal(await size(sandbox), "512 of 512 MiB, 1 of 1 CPUs");
});

test("the next owner finds what there is, and brings it to what was asked for", async (t) => {
  const world = await MemoryRuntime.open(t, kvm);
  const { id } = await create(world);
  const vm = world.hypervisor.vms.get(id);
  assert.ok(vm !== undefined);
  // As a killed owner leaves it: more in the VM than the state says.
  vm.size = { memoryMib: 640, cpus: 4 };
  vm.takes = (wanted) => ({ ...wanted, memoryMib: Math.max(wanted.memoryMib, 600) });
  await world.reopen();
  const sandbox = await world.core.sandboxes.get(id);
  assert.equal(await size(sandbox), "600 of 256 MiB, 1 of 1 CPUs", "what is there, and not what should be");
  vm.takes = (wanted) => wanted;
  await world.reopen();
  assert.equal(await size(await world.core.sandboxes.get(id)), "256 of 256 MiB, 1 of 1 CPUs");
});
