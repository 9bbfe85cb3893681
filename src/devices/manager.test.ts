import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { MemoryHypervisor } from "../../test/support/memory-hypervisor.ts";
import { BelljarError, deviceLimits, type ErrorReason, silentLog, systemClock } from "../base/index.ts";
import type { DiskConfig, Vm } from "../hypervisor/interface.ts";
import { acquireLock } from "../store/index.ts";
import type { DeviceState } from "./device-state.ts";
import { DeviceManager, type ManagerDeps, SANDBOX } from "./manager.ts";
import { VfioClaims } from "./vfio/claims.ts";
import { systemPciHost } from "./vfio/pci-host.ts";

interface World {
  readonly hypervisor: MemoryHypervisor;
  readonly vm: Vm;
  readonly manager: DeviceManager;
  /** What was written down, each time. */
  readonly written: (readonly DeviceState[])[];
  /** What the guest uses: serial numbers. */
  readonly used: Set<string>;
  readonly file: (name: string, bytes?: number) => Promise<string>;
  /** A manager of the next owner, from what was written at this time. */
  readonly successor: (state: readonly DeviceState[]) => DeviceManager;
}

async function world(t: TestContext, change: Partial<ManagerDeps> = {}): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-devices-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const hypervisor = new MemoryHypervisor();
  const vm = await hypervisor.start({
    id: "0123456789ab",
    runDir: dir,
    acceleration: "tcg",
    memoryMib: 128,
    cpus: 1,
    boot: { kernelPath: "/kernel", kernelArguments: [] },
    disks: [],
  });
  const vfioClaims = new VfioClaims({
    host: systemPciHost(dir, dir),
    claimsDir: join(dir, "claims"),
    lock: acquireLock,
    clock: systemClock,
    log: silentLog,
  });
  const written: (readonly DeviceState[])[] = [];
  const used = new Set<string>();
  const make = (state: readonly DeviceState[]): DeviceManager => {
    const manager: DeviceManager = new DeviceManager(
      {
        place: { sandboxId: "0123456789ab", runDir: dir, rootDir: dir, vfioClaims },
        vm: () => vm,
        whileAlive: (work) => work,
        findInGuest: async ({ serial, unused }) => {
          if (unused && used.has(serial ?? "")) throw new BelljarError("DEVICE_IN_USE", "it is mounted");
          return [{ name: "sdb", type: "block", major: 8, minor: 16 }];
        },
        write: async () => {
          written.push(manager.save());
        },
        log: silentLog,
        ...change,
      },
      state,
    );
    return manager;
  };
  const file = async (name: string, bytes = 512): Promise<string> => {
    const path = join(dir, name);
    await writeFile(path, Buffer.alloc(bytes));
    return path;
  };
  return { hypervisor, vm, manager: make([]), written, used, file, successor: make };
}

const plugs = (hypervisor: MemoryHypervisor): string[] =>
  hypervisor.calls.filter((call) => /^(?:un)?plug/.test(call)).map((call) => call.split(" ")[0] ?? "");

const fails = (reason: ErrorReason) => ({ reason });

test("only the first attachment and the last do work; the same file is one device, by whatever path", async (t) => {
  const { hypervisor, manager, file } = await world(t);
  const path = await file("disk");
  const first = await manager.add({ kind: "block", path });
  const second = await manager.add({ kind: "block", path: path.replace("/disk", "/./disk") });
  const third = await manager.add({ kind: "block", path }, { holder: "c1" });
  assert.deepEqual([second.id, third.id], [first.id, first.id]);
  assert.deepEqual(manager.get(first.id).attachments, [SANDBOX, SANDBOX, "c1"]);
  assert.deepEqual(plugs(hypervisor), ["plugDisk"]);
  // What a container has, the sandbox cannot take away.
  await assert.rejects(manager.remove(first.id), fails("DEVICE_IN_USE"));
  await manager.remove(first.id, "c1");
  await manager.remove(first.id);
  assert.deepEqual(plugs(hypervisor), ["plugDisk"]);
  await manager.remove(first.id);
  assert.deepEqual(plugs(hypervisor), ["plugDisk", "unplugDisk"]);
  assert.deepEqual(manager.save(), []);
  await assert.rejects(manager.remove(first.id), fails("DEVICE_NOT_FOUND"));
});

test("its steps are written down before they are done, and with their result", async (t) => {
  const { manager, written, file } = await world(t);
  const { id } = await manager.add({ kind: "block", path: await file("disk") });
  await manager.remove(id);
  const phases = written.map((devices) => devices.map(({ phase }) => phase).join());
  assert.deepEqual(phases, ["attaching", "attached", "detaching", "detached", ""]);
  assert.equal(written[1]?.[0]?.disk?.slot, 0);
  assert.deepEqual(written[1]?.[0]?.nodes, [{ name: "sdb", type: "block", major: 8, minor: 16 }]);
});

test("a device that QEMU refuses leaves nothing", async (t) => {
  const { hypervisor, manager, vm, file } = await world(t);
  const error = new BelljarError("DEVICE_REFUSED", "no");
  hypervisor.fail("plugDisk", error);
  const path = await file("disk");
  await assert.rejects(manager.add({ kind: "block", path }), error);
  assert.deepEqual([manager.save(), vm.save().disks], [[], []]);
  await manager.add({ kind: "block", path });
});

test("a device that the guest does not let go of stays its holder's", async (t) => {
  const { hypervisor, manager, file } = await world(t);
  const { id } = await manager.add({ kind: "block", path: await file("disk") });
  const error = new BelljarError("DEADLINE_EXCEEDED", "the guest did not let go");
  hypervisor.fail("unplugDisk", error);
  await assert.rejects(manager.remove(id), error);
  const { phase, references, attachments } = manager.get(id);
  assert.deepEqual([phase, references, attachments], ["attached", [SANDBOX], [SANDBOX]]);
  await manager.remove(id);
});

test("a device that the guest does not find is taken away again", async (t) => {
  const late = new BelljarError("AGENT_FAILED", "it has not appeared");
  const { manager, vm, file } = await world(t, { findInGuest: () => Promise.reject(late) });
  await assert.rejects(manager.add({ kind: "block", path: await file("disk") }), late);
  assert.deepEqual([manager.save(), vm.save().disks], [[], []]);
});

test("what the guest uses is not taken away", async (t) => {
  const { hypervisor, manager, used, file } = await world(t);
  const { id } = await manager.add({ kind: "block", path: await file("disk") });
  used.add(id);
  await assert.rejects(manager.remove(id), fails("DEVICE_IN_USE"));
  assert.deepEqual(plugs(hypervisor), ["plugDisk"]);
  assert.equal(manager.get(id).phase, "attached");
});

test("disks of containers are counted by their containers, and are nobody else's", async (t) => {
  const { hypervisor, manager, written, file } = await world(t);
  const layer: DiskConfig = { serial: "l-1", path: await file("layer"), format: "raw", readOnly: true };
  await manager.addDisk(layer, "c1");
  await manager.addDisk(layer, "c2");
  await assert.rejects(manager.add({ kind: "block", path: layer.path, readOnly: true }), fails("DEVICE_IN_USE"));
  await assert.rejects(manager.remove("l-1"), fails("DEVICE_IN_USE"));
  await manager.removeDisk("l-1", "c1");
  assert.deepEqual(plugs(hypervisor), ["plugDisk"]);
  await manager.removeDisk("l-1", "c2");
  await manager.removeDisk("l-1", "c2");
  assert.deepEqual(plugs(hypervisor), ["plugDisk", "unplugDisk"]);
  // The container's own state says it already.
  assert.deepEqual(written, []);
});

test("the same device with other options is refused", async (t) => {
  const { manager, file } = await world(t);
  const path = await file("disk");
  await manager.add({ kind: "block", path });
  await assert.rejects(manager.add({ kind: "block", path, readOnly: true }), fails("DEVICE_IN_USE"));
});

test("an id that is taken is tried again, a few times", async (t) => {
  const ids = ["a", "a", "a", "b", ...Array<string>(deviceLimits.idTries).fill("a")];
  const { manager, file } = await world(t, { newId: () => ids.shift() ?? "z" });
  await manager.add({ kind: "block", path: await file("one") });
  assert.equal((await manager.add({ kind: "block", path: await file("two") })).id, "b");
  await assert.rejects(manager.add({ kind: "block", path: await file("three") }), fails("INTERNAL"));
});

test("a successor, from any state that was written, has what was attached and nothing else", async (t) => {
  const { hypervisor, manager, vm, written, file, successor } = await world(t);
  const kept = await manager.add({ kind: "block", path: await file("kept") });
  const gone = await manager.add({ kind: "block", path: await file("gone") });
  await manager.remove(gone.id);
  for (const state of written.slice(1)) {
    const next = successor(state);
    // Whatever may be plugged is said to be, as when a VM is taken over.
    for (const disk of next.doubtful().disks) {
      if (!vm.save().disks.some(({ serial }) => serial === disk.serial)) await vm.plugDisk(disk);
    }
    await next.reconcile([]);
    const isGoneThere = state.some(({ id, phase }) => id === gone.id && phase === "attached");
    const ids = isGoneThere ? [kept.id, gone.id] : [kept.id];
    assert.deepEqual(
      next.save().map(({ id }) => id),
      ids,
    );
    assert.deepEqual(
      vm
        .save()
        .disks.map(({ serial }) => serial)
        .sort(),
      [...ids].sort(),
    );
    if (isGoneThere) await vm.unplugDisk(gone.id);
  }
  assert.equal(hypervisor.live.length, 1);
});

test("a container that is gone has nothing any more; one that is there has its disks, written down or not", async (t) => {
  const { manager, vm, file } = await world(t);
  const disk = (name: string, path: string): DiskConfig => ({ serial: name, path, format: "raw", readOnly: true });
  const layer = disk("l-1", await file("layer"));
  await manager.addDisk(layer, "gone");
  await manager.add({ kind: "block", path: await file("own") }, { holder: "gone" });
  await manager.reconcile([{ id: "here", disks: [layer] }]);
  assert.deepEqual(
    manager.save().map(({ id, attachments }) => [id, attachments]),
    [["l-1", ["here"]]],
  );
  assert.deepEqual(
    vm.save().disks.map(({ serial }) => serial),
    ["l-1"],
  );
});

test("after the VM's end the sandbox's devices wait, at their places, for the next one", async (t) => {
  const { manager, file } = await world(t);
  await manager.addDisk({ serial: "w-1", path: await file("own"), format: "raw", readOnly: false }, "c1");
  const { id } = await manager.add({ kind: "block", path: await file("disk") });
  await manager.add({ kind: "block", path: await file("disk") }, { holder: "c1" });
  await manager.vmEnded();
  const [left, ...others] = manager.save();
  assert.deepEqual([left?.phase, left?.attachments, others], ["detached", [SANDBOX], []]);
  const { disks } = await manager.coldPlug();
  assert.deepEqual(
    disks.map(({ serial, slot }) => [serial, slot]),
    [[id, 1]],
  );
  assert.equal(manager.get(id).phase, "attached");
});

test("there is an end to how many there can be", async (t) => {
  const { manager, file } = await world(t);
  for (let at = 0; at < deviceLimits.devicesMax; at += 1) {
    await manager.add({ kind: "generic", path: `/dev/x${at}` });
  }
  await assert.rejects(manager.add({ kind: "block", path: await file("disk") }), fails("TOO_MANY_DEVICES"));
});
