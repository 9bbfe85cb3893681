/** The hypervisor with the real QEMU. BELLJAR_TEST_ACCEL=kvm runs the same under KVM. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog } from "../../src/base/index.ts";
import {
  type Acceleration,
  createAccelerationProbe,
  createQemu,
  type DiskConfig,
  findVmmProcesses,
  type Vm,
  type VmConfig,
} from "../../src/hypervisor/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";
import { lastTick, tickGuest } from "../support/tick-guest.ts";

const qemu = createQemu({ log: silentLog });
const acceleration: Acceleration = process.env["BELLJAR_TEST_ACCEL"] === "kvm" ? "kvm" : "tcg";
const MEMORY_MIB = 128;

async function vmConfig(t: TestScope, change: Partial<VmConfig> = {}): Promise<VmConfig> {
  const runDir = await tempDir(t);
  const boot = change.boot ?? (await tickGuest(t.dir));
  return { id: "0123456789ab", runDir, acceleration, memoryMib: MEMORY_MIB, cpus: 1, disks: [], ...change, boot };
}

async function start(t: TestScope, config: VmConfig): Promise<Vm> {
  const vm = await qemu.start(config);
  t.after(() => vm.kill());
  return vm;
}

/** Waits until the guest has ticked beyond this, or has ended. */
async function tickAfter(vm: Vm, tick: number): Promise<number> {
  let ended = false;
  void vm.ended.then(() => {
    ended = true;
  });
  while (!ended) {
    const seen = lastTick(vm.consoleTail());
    if (seen > tick) return seen;
    await sleep(10);
  }
  return assert.fail(`the VM ended: ${JSON.stringify(await vm.ended)}; ${vm.consoleTail()}`);
}

test("a guest runs, pauses, is taken over by another handle, and is killed", async (t) => {
  const before = performance.now();
  const config = await vmConfig(t);
  const vm = await qemu.start(config);
  t.diagnostic(`started in ${Math.round(performance.now() - before)} ms`);
  await tickAfter(vm, 0);
  t.diagnostic(`first tick after ${Math.round(performance.now() - before)} ms`);
  const { vcpuThreadIds, pid } = await vm.info();
  assert.equal(vcpuThreadIds.length, 1);
  assert.match(await readFile(`/proc/${pid}/task/${vcpuThreadIds[0]}/comm`, "utf8"), /CPU/);
  const found = await findVmmProcesses(t.dir);
  assert.deepEqual(found, [{ id: config.id, runDir: config.runDir, identity: vm.save().vmm }]);

  await vm.release();
  const again = await qemu.attach(vm.save());
  t.after(() => again.kill());
  await again.pause();
  assert.equal((await again.info()).status, "paused");
  await again.resume();
  await tickAfter(again, 0);
  await again.check();
  await again.kill();
  assert.deepEqual(await again.ended, { cause: "requested" });
  assert.deepEqual(await readdir(config.runDir), []);
  assert.deepEqual(await findVmmProcesses(t.dir), []);
});

test("a kernel that panics ends the VM with its own words", async (t) => {
  const { initrdPath: _, ...boot } = await tickGuest(t.dir);
  const vm = await start(t, await vmConfig(t, { boot }));
  const end = await vm.ended;
  assert.ok(end.cause === "guest" && end.panic, JSON.stringify(end));
  assert.match(end.detail, /Kernel panic - not syncing: VFS: Unable to mount root fs/);
});

test("device state that was saved loads into another VM, which goes on where the first was", async (t) => {
  const config = await vmConfig(t);
  const vm = await start(t, config);
  await tickAfter(vm, 2);
  const pausedAtMs = performance.now();
  await vm.pause();
  const stillFromMs = performance.now();
  const devices = join(t.dir, "devices");
  await vm.saveDevices(devices);
  await vm.saveDevices(devices);
  const saved = lastTick(vm.consoleTail());

  const copy = await qemu.start(
    { ...config, id: "copy", runDir: await tempDir(t) },
    {
      loadDevicesFrom: devices,
      fillMemory: async ({ pid }) => copyMemory((await vm.info()).pid, pid),
    },
  );
  t.after(() => copy.kill());
  assert.equal((await copy.info()).status, "paused");
  const copiedMs = performance.now() - stillFromMs;
  await copy.resume();
  const next = await tickAfter(copy, 0);
  assert.ok(next > saved && next < saved + 100, `tick ${next} came after ${saved}`);
  // The first one was not harmed by being saved, and says for how long it stood still.
  const stillMs = await vm.resume();
  await tickAfter(vm, saved);
  const outerMs = performance.now() - pausedAtMs;
  assert.ok(stillMs !== undefined && stillMs > copiedMs && stillMs < outerMs, `${copiedMs} ${stillMs} ${outerMs}`);
});

test("a QEMU that waits becomes the VM that was saved, with disks that are there and others that come only then", async (t) => {
  const path = join(t.dir, "disk.raw");
  await writeFile(path, "");
  await truncate(path, 1024 * 1024);
  const disk = { path, format: "raw", readOnly: true } as const;
  const disks: readonly DiskConfig[] = [
    { ...disk, serial: "scsi", slot: 3 },
    { ...disk, serial: "blk", driver: "virtio-blk", port: 2 },
  ];
  const config = await vmConfig(t, { disks });
  const vm = await start(t, config);
  await tickAfter(vm, 2);
  await vm.pause();
  const devices = join(t.dir, "devices");
  await vm.saveDevices(devices);
  const saved = lastTick(vm.consoleTail());
  const fillMemory = async ({ pid }: { readonly pid: number }) => copyMemory((await vm.info()).pid, pid);

  const own = { ...config, id: "waits", runDir: await tempDir(t) };
  const waiting = await qemu.startWaiting({ ...own, disks: disks.slice(0, 1) });
  t.after(() => waiting.kill());
  assert.deepEqual((await findVmmProcesses(t.dir)).map(({ identity }) => identity.pid).includes(waiting.vmm.pid), true);
  // What it will translate its guest to has memory already, which QEMU asks for in huge pages.
  const maps = (await readFile(`/proc/${waiting.vmm.pid}/smaps`, "latin1")).split(/\n(?=[0-9a-f]+-)/);
  const residentKib = maps.map((map) => (/ rwxp /.test(map) ? Number(/^Rss: +(\d+) kB$/m.exec(map)?.[1]) : 0));
  const isHuge = !(await readFile("/sys/kernel/mm/transparent_hugepage/enabled", "latin1")).includes("[never]");
  // More than the page that it has written to itself, even where the host has no huge ones left.
  assert.ok(Math.max(...residentKib) >= (isHuge ? 2048 + 16 : 4 + 16), `${Math.max(...residentKib)} KiB`);
  const spawned: number[] = [];
  const from = performance.now();
  const copy = await waiting.load(own, {
    loadDevicesFrom: devices,
    fillMemory,
    onSpawn: async ({ pid }) => void spawned.push(pid),
  });
  t.after(() => copy.kill());
  t.diagnostic(`loaded in ${Math.round(performance.now() - from)} ms`);
  assert.deepEqual(spawned, [waiting.vmm.pid]);
  assert.deepEqual(copy.save().disks, vm.save().disks);
  await copy.resume();
  const next = await tickAfter(copy, 0);
  assert.ok(next > saved && next < saved + 100, `tick ${next} came after ${saved}`);
  // What it saves in its turn is loaded by one that had all from the start.
  await copy.pause();
  const again = join(t.dir, "again");
  await copy.saveDevices(again);
  const { pid } = await copy.info();
  const third = await qemu.start(
    { ...config, id: "third", runDir: await tempDir(t) },
    { loadDevicesFrom: again, fillMemory: async (vmm) => copyMemory(pid, vmm.pid) },
  );
  t.after(() => third.kill());
  await third.resume();
  await tickAfter(third, 0);

  // Device state that does not fit ends it, and leaves nothing.
  const other = { ...config, id: "other", runDir: await tempDir(t) };
  const useless = await qemu.startWaiting({ ...other, disks: [] });
  await assert.rejects(useless.load({ ...other, disks: [] }, { loadDevicesFrom: devices, fillMemory }), {
    reason: "VMM_START_FAILED",
  });
  assert.deepEqual(await readdir(other.runDir), []);
  // So does a disk that is another one than the guest has: it was there when QEMU started.
  const stale = await qemu.startWaiting({ ...other, disks: [{ ...disk, serial: "scsi", slot: 4 }] });
  await assert.rejects(stale.load(other, { loadDevicesFrom: devices, fillMemory }), {
    reason: "VMM_START_FAILED",
    message: /another disk scsi/,
  });
  assert.deepEqual(await readdir(other.runDir), []);
});

test("device state that is damaged, or not there, starts nothing", async (t) => {
  const config = await vmConfig(t);
  const damaged = join(t.dir, "damaged");
  await writeFile(damaged, "QEVM but not really");
  for (const loadDevicesFrom of [damaged, join(t.dir, "absent")]) {
    await assert.rejects(qemu.start(config, { loadDevicesFrom }), { reason: "VMM_START_FAILED" });
    assert.deepEqual(await readdir(config.runDir), []);
    assert.deepEqual(await findVmmProcesses(t.dir), []);
  }
});

test("hundreds of disks, shared layers among them, and paths with commas", async (t) => {
  const dir = join(t.dir, "a,b");
  await mkdir(dir);
  const layer = join(dir, "layer,1.erofs");
  await writeFile(layer, "");
  await truncate(layer, 1024 * 1024);
  const disk = (index: number): DiskConfig => ({ serial: `l${index}`, path: layer, format: "raw", readOnly: true });
  const disks = Array.from({ length: 300 }, (_, index) => disk(index));
  const [one, two] = await Promise.all([
    start(t, await vmConfig(t, { disks })),
    start(
      t,
      await vmConfig(t, {
        id: "b",
        disks: disks.slice(0, 3),
        boot: { kernelPath: (await tickGuest(dir)).kernelPath, kernelArguments: [] },
      }),
    ),
  ]);
  assert.equal(one.save().disks.at(-1)?.slot, 299);
  await two.unplugDisk("l1");
  await two.plugDisk(disk(7));
  assert.deepEqual(
    two
      .save()
      .disks.map(({ serial, slot }) => `${serial}:${slot}`)
      .sort(),
    ["l0:0", "l2:2", "l7:1"],
  );
  await assert.rejects(two.plugDisk({ ...disk(8), path: join(dir, "absent") }), { reason: "VMM_PROTOCOL" });
  assert.equal(two.save().disks.length, 3);
});

test("a VM outlives the process that started it, and is found without any record", async (t) => {
  const config = await vmConfig(t);
  const program = `
    import { createQemu } from ${JSON.stringify(join(import.meta.dirname, "../../src/hypervisor/index.ts"))};
    import { silentLog } from ${JSON.stringify(join(import.meta.dirname, "../../src/base/index.ts"))};
    const vm = await createQemu({ log: silentLog }).start(${JSON.stringify(config)});
    process.stdout.write(JSON.stringify(vm.save()));
    setInterval(() => {}, 1000);`;
  const starter = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => starter.kill("SIGKILL"));
  const [state] = await once(starter.stdout, "data");
  starter.kill("SIGKILL");
  await once(starter, "exit");
  const [found] = await findVmmProcesses(t.dir);
  assert.equal(found?.id, config.id);
  const vm = await qemu.attach(JSON.parse(String(state)));
  t.after(() => vm.kill());
  await tickAfter(vm, 0);
  process.kill(found.identity.pid, "SIGKILL");
  assert.equal((await vm.ended).cause, "died");
});

test("auto finds out once whether KVM works, and remembers", async (t) => {
  const boot = await tickGuest(t.dir);
  const cacheDir = join(t.dir, "cache");
  const probe = createAccelerationProbe({ hypervisor: qemu, cacheDir, boot: async () => boot, log: silentLog });
  const before = performance.now();
  const first = await probe.resolve("auto");
  t.diagnostic(`${first.acceleration}: ${first.explanation} (${Math.round(performance.now() - before)} ms)`);
  if (acceleration === "kvm") assert.equal(first.acceleration, "kvm", first.explanation);
  const second = await probe.resolve("auto");
  assert.deepEqual({ ...second, remembered: false }, first);
  if (first.acceleration === "kvm") assert.equal((await probe.resolve("kvm")).acceleration, "kvm");
  else await assert.rejects(probe.resolve("kvm"), { reason: "ACCELERATION_UNAVAILABLE" });
});

/** Copies a paused guest's memory: what a checkpoint will do by its own means. */
async function copyMemory(from: number, to: number): Promise<void> {
  const [source, target] = await Promise.all([memoryStart(from), memoryStart(to)]);
  await using input = await open(`/proc/${from}/mem`, "r");
  await using output = await open(`/proc/${to}/mem`, "r+");
  const piece = Buffer.alloc(4 * 1024 * 1024);
  for (let offset = 0; offset < MEMORY_MIB * 1024 * 1024; offset += piece.length) {
    await input.read(piece, 0, piece.length, source + offset);
    await output.write(piece, 0, piece.length, target + offset);
  }
}

/** Where the guest's memory begins in a QEMU: the mapping of exactly its size. */
async function memoryStart(pid: number): Promise<number> {
  for (const line of (await readFile(`/proc/${pid}/maps`, "utf8")).split("\n")) {
    const [start, end] = (line.split(" ")[0] ?? "").split("-").map((text) => Number.parseInt(text, 16));
    if (start !== undefined && end !== undefined && end - start === MEMORY_MIB * 1024 * 1024) return start;
  }
  return assert.fail(`no mapping of ${MEMORY_MIB} MiB in process ${pid}`);
}
