/** What is plugged into a sandbox, in a real VM: disks of both drivers, programs behind sockets, hundreds at once, owners that change. */
import assert from "node:assert/strict";
import { mkdir, open, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { connectAgent } from "../../src/agent-client/index.ts";
import { identifyProcess, silentLog, systemClock } from "../../src/base/index.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { createQemu } from "../../src/hypervisor/index.ts";
import { openImageStore } from "../../src/images/index.ts";
import { openRuntime, type RuntimeCore, type RuntimeDeps, type SandboxHandle } from "../../src/runtime/index.ts";
import { resolvePaths } from "../../src/sdk/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";
import { tickGuest } from "../support/tick-guest.ts";

const MIB = 1024 * 1024;
/** More than the letters of the alphabet, by which disks are named. Two hundred take three minutes: BELLJAR_TEST_DISKS=200. */
const MANY = Number(process.env["BELLJAR_TEST_DISKS"] ?? 40);

interface World {
  runtime: RuntimeCore;
  readonly dir: string;
  readonly deps: RuntimeDeps;
  readonly scope: TestScope;
  file(name: string, sizeBytes?: number): Promise<string>;
}

test(
  "devices in a real VM",
  async (t) => {
    const world = await openWorld(t);
    const disk = await world.file("given", 4 * MIB);
    const { id } = await world.runtime.sandboxes.create({
      image: "busybox",
      vhostUser: true,
      container: {
        command: ["sleep", "1000"],
        devices: [{ path: disk, containerPath: "/dev/given" }, { path: "/dev/fuse" }],
      },
    });
    for (const part of [given, kinds, refusals, owners, reboot, many]) {
      const startedMs = performance.now();
      await part(world, await world.runtime.sandboxes.get(id), disk);
      t.diagnostic(`${part.name}: ${Math.round(performance.now() - startedMs)} ms`);
    }
  },
  { timeoutMs: 600_000 },
);

/** A container reads and writes the device that it was given, and has it while it is there. */
async function given(_world: World, sandbox: SandboxHandle, disk: string): Promise<void> {
  await sandbox.exec([
    "sh",
    "-c",
    "test -b /dev/given && test -c /dev/fuse && echo hello | dd of=/dev/given conv=fsync",
  ]);
  await using file = await open(disk);
  const { buffer } = await file.read(Buffer.alloc(6), 0, 6, 0);
  assert.equal(buffer.toString(), "hello\n");
  const [device] = (await sandbox.devices.list()).filter(({ source }) => source === disk);
  assert.deepEqual(device?.attachments, [sandbox.main.id]);
  await assert.rejects(sandbox.devices.remove(disk), { reason: "DEVICE_IN_USE" });
}

/** Each kind that has another end on this host comes, has its node, and goes, its program with it. */
async function kinds(world: World, sandbox: SandboxHandle): Promise<void> {
  const scsi = await sandbox.devices.add({ kind: "block", path: await world.file("scsi") });
  assert.match(scsi.nodes.join(), /^\/dev\/sd[a-z]$/);
  const rates = { readBytesPerSecond: 50 * MIB };
  const cache = { direct: true, noFlush: false };
  const path = await world.file("blk");
  const blk = await sandbox.devices.add({ kind: "block", path, driver: "virtio-blk", cache, rates });
  assert.equal(blk.nodes.join(), "/dev/vda");
  const served = await sandbox.devices.add({ kind: "vhost-user-blk", path: await world.file("served") });
  assert.equal(served.nodes.join(), "/dev/vdb");
  const directory = join(world.dir, "shared");
  await mkdir(directory);
  const shared = await sandbox.devices.add({ kind: "vhost-user-fs", tag: "shared", directory, readOnly: true });
  for (const { backEndPid } of [served, shared]) assert.ok(await identifyProcess(backEndPid ?? 0));
  // The same again is counted, and given back.
  assert.equal((await sandbox.devices.add({ kind: "block", path: scsi.source })).references, 2);
  await sandbox.devices.remove(scsi.id);
  for (const { id } of [shared, served, blk, scsi]) await sandbox.devices.remove(id);
  for (const { backEndPid } of [served, shared]) assert.equal(await identifyProcess(backEndPid ?? 0), undefined);
  const left = (await sandbox.devices.list()).filter(({ attachments }) => attachments.includes("sandbox"));
  assert.deepEqual(left, []);
}

/** What cannot be is refused with its name, and nothing is left of it. */
async function refusals(world: World, sandbox: SandboxHandle): Promise<void> {
  const before = (await sandbox.devices.list()).length;
  const add = (path: string): Promise<unknown> => sandbox.devices.add({ kind: "block", path });
  await assert.rejects(add("/absent"), { reason: "DEVICE_NOT_FOUND" });
  await assert.rejects(add(await world.file("odd", 1000)), { reason: "DISK_INVALID" });
  await assert.rejects(sandbox.devices.add({ kind: "vhost-user-scsi", socketPath: "/absent" }), {
    reason: "DEVICE_NOT_FOUND",
  });
  // Another VM has it: QEMU's lock, by whatever root.
  const path = await world.file("locked");
  const runDir = await tempDir(world.scope);
  const other = await createQemu({ log: silentLog }).start({
    id: "0123456789ab",
    runDir,
    acceleration: "tcg",
    memoryMib: 128,
    cpus: 1,
    boot: await tickGuest(world.dir),
    disks: [{ serial: "x", path, format: "raw", readOnly: false }],
  });
  world.scope.after(() => other.kill());
  const inUse = { reason: "DISK_IN_USE", message: new RegExp(path) };
  await assert.rejects(add(path), inUse);
  await assert.rejects(sandbox.devices.add({ kind: "vhost-user-blk", path }), inUse);
  await other.kill();
  assert.equal((await sandbox.devices.list()).length, before);
}

/** Another owner finds the devices where they were, and can remove them. */
async function owners(world: World, sandbox: SandboxHandle): Promise<void> {
  const path = await world.file("kept");
  const kept = await sandbox.devices.add({ kind: "block", path });
  const served = await sandbox.devices.add({ kind: "vhost-user-blk", path: await world.file("kept-served") });
  const before = await sandbox.devices.list();
  await world.runtime.release();
  world.runtime = await openRuntime(world.deps);
  const again = await world.runtime.sandboxes.get(sandbox.id);
  assert.deepEqual(await again.devices.list(), before);
  await again.devices.remove(served.id);
  assert.equal(await identifyProcess(served.backEndPid ?? 0), undefined);
  await again.devices.remove(kept.id);
}

async function many(world: World, sandbox: SandboxHandle): Promise<void> {
  const times: number[] = [];
  for (let at = 0; at < MANY; at += 1) {
    const path = await world.file(`many-${at}`);
    const startMs = performance.now();
    const { nodes } = await sandbox.devices.add({ kind: "block", path });
    times.push(performance.now() - startMs);
    if (at % 25 === 24)
      world.scope.diagnostic(`${at + 1} disks: the last one took ${Math.round(times.at(-1) ?? 0)} ms`);
    assert.equal(nodes.length, 1);
  }
  const sorted = times.toSorted((one, other) => one - other);
  world.scope.diagnostic(`hotplug to node: median ${Math.round(sorted[MANY / 2] ?? 0)} ms, n ${MANY}`);
  const nodes = new Set((await sandbox.devices.list()).flatMap((device) => device.nodes));
  assert.ok(nodes.size >= MANY);
  for (const at of [0, MANY / 2, MANY - 1]) await sandbox.devices.remove(join(world.dir, `many-${at}`));
}

/** The next VM has from its start what the last one had, at the same place; programs behind devices are started anew. */
async function reboot(world: World, sandbox: SandboxHandle): Promise<void> {
  const path = await world.file("again");
  await sandbox.devices.add({ kind: "block", path });
  const served = await sandbox.devices.add({ kind: "vhost-user-blk", path: await world.file("served-again") });
  await sandbox.stop({ timeoutMs: 0 });
  assert.equal(await identifyProcess(served.backEndPid ?? 0), undefined);
  await sandbox.start();
  const after = await sandbox.devices.list();
  const [first] = after.filter(({ source }) => source === path);
  assert.deepEqual([first?.state, first?.nodes.length], ["attached", 1]);
  const again = after.find(({ id }) => id === served.id);
  assert.equal(again?.nodes.length, 1);
  assert.notEqual(again?.backEndPid, served.backEndPid);
  assert.equal((await sandbox.exec(["test", "-b", "/dev/given"])).exitCode, 0);
}

async function openWorld(scope: TestScope): Promise<World> {
  const dir = await tempDir(scope);
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  const deps: RuntimeDeps = {
    hypervisor: createQemu({ log: silentLog }),
    acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
    guestImages: openGuestImages({ dir: guest, log: silentLog }),
    images: await openImageStore({ dir: join(dir, "images"), guestDir: guest, log: silentLog }),
    connectAgent,
    rootDir: join(dir, "root"),
    runDir: join(dir, "run"),
    clock: systemClock,
    log: silentLog,
  };
  const file = async (name: string, sizeBytes = MIB): Promise<string> => {
    const path = join(dir, name);
    await writeFile(path, "");
    await truncate(path, sizeBytes);
    return path;
  };
  const world: World = { runtime: await openRuntime(deps), dir, deps, scope, file };
  scope.after(async () => {
    const { sandboxes } = world.runtime;
    for (const { id } of await sandboxes.list()) await (await sandboxes.get(id)).delete({ force: true });
    await world.runtime.release();
  });
  return world;
}
