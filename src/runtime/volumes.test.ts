/** Mounts and volumes through a runtime: who has which disk, what is left, what the next owner finds. */
import assert from "node:assert/strict";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import type { MountConfig } from "../container/index.ts";
import { findBackEnds } from "../devices/index.ts";
import type { ContainerHandle, SandboxHandle } from "./interface.ts";

const DATA: MountConfig = { type: "volume", source: "data", target: "/data" };
const READ: MountConfig = { ...DATA, readOnly: true };

const withMounts = (world: MemoryRuntime, ...mounts: MountConfig[]): Promise<SandboxHandle> =>
  world.core.sandboxes.create({ image: "busybox", container: { mounts } });

const further = (sandbox: SandboxHandle, name: string, ...mounts: MountConfig[]): Promise<ContainerHandle> =>
  sandbox.containers.create({ image: "busybox", name, mounts });

const pluggedIn = (world: MemoryRuntime, sandbox: SandboxHandle): string[] =>
  world.guests.guest(sandbox.id).vm.disks.map(({ path }) => path);

test("a volume is made when it is missing, shared in its sandbox, refused to others, and outlives them", async (t) => {
  const world = await MemoryRuntime.open(t);
  const { volumes } = world.core;
  const sandbox = await withMounts(world, DATA);
  const second = await further(sandbox, "second", DATA);
  const { path, users } = await volumes.get("data");
  assert.equal(pluggedIn(world, sandbox).filter((each) => each === path).length, 1);
  assert.deepEqual(
    users.map(({ containerId, mounted }) => [containerId, mounted]),
    [
      [sandbox.main.id, true],
      [second.id, true],
    ],
  );
  const refused = { reason: "VOLUME_IN_USE", message: `the volume data is in use by sandbox ${sandbox.id}` };
  await assert.rejects(withMounts(world, DATA), refused);
  await assert.rejects(withMounts(world, READ), refused);
  await assert.rejects(volumes.remove("data"), refused);
  await assert.rejects(further(sandbox, "reader", READ), {
    reason: "VOLUME_IN_USE",
    message: /in this sandbox already/,
  });
  assert.equal((await world.core.sandboxes.list()).length, 1);
  await second.delete();
  assert.ok(pluggedIn(world, sandbox).includes(path));
  await sandbox.stop();
  // A sandbox without a VM has nothing mounted; but it may be started again.
  await assert.rejects(volumes.remove("data"), refused);
  const other = await withMounts(world, DATA);
  await assert.rejects(sandbox.start(), { reason: "VOLUME_IN_USE" });
  await other.delete({ force: true });
  await sandbox.start();
  assert.deepEqual((await sandbox.info()).containers[0]?.mounts, [
    { type: "volume", source: "data", destination: "/data", readOnly: false, how: "disk" },
  ]);
  await sandbox.delete({ force: true });
  assert.deepEqual(
    (await volumes.list()).map(({ name }) => name),
    ["data"],
  );
  assert.deepEqual(await volumes.prune(), { removed: [], freedBytes: 0 });
  assert.deepEqual((await volumes.prune({ all: true })).removed, ["data"]);
});

test("several sandboxes read one volume; who comes to write is refused until they are gone", async (t) => {
  const world = await MemoryRuntime.open(t);
  const [first, second] = [await withMounts(world, READ), await withMounts(world, READ)];
  await assert.rejects(withMounts(world, DATA), { reason: "VOLUME_IN_USE", message: /to read it/ });
  await first.delete({ force: true });
  await second.delete({ force: true });
  const [one, two] = await Promise.allSettled([withMounts(world, DATA), withMounts(world, DATA)]);
  assert.deepEqual([one.status, two.status].sort(), ["fulfilled", "rejected"]);
});

test("a container's own disks go with it; a volume's never", async (t) => {
  const world = await MemoryRuntime.open(t);
  const tree = await tempDir(t);
  const bind: MountConfig = { type: "bind", source: tree, target: "/tree", how: "disk" };
  const sandbox = await withMounts(world, { type: "volume", target: "/own" });
  const second = await further(sandbox, "second", DATA, bind);
  const disksDir = join(world.sandboxesDir, sandbox.id, "disks");
  // What they lie over is the sandbox's.
  const kinds = async (): Promise<string[]> =>
    (await readdir(disksDir)).flatMap((name) => /^[a-z]-/.exec(name) ?? []).sort();
  assert.deepEqual(await kinds(), ["m-", "m-", "w-", "w-"]);
  world.guests.fault("createContainer", { kind: "fail", error: new BelljarError("AGENT_FAILED", "no") });
  await assert.rejects(further(sandbox, "third", bind, DATA), { reason: "AGENT_FAILED" });
  assert.deepEqual(await kinds(), ["m-", "m-", "w-", "w-"]);
  await second.delete({ force: true });
  assert.deepEqual(await kinds(), ["m-", "w-"]);
  const { path } = await world.core.volumes.get("data");
  assert.deepEqual((await readdir(join(path, ".."))).includes("disk.raw"), true);
});

test("copies follow the host, through a new owner too, and keep the last when the source vanishes", async (t) => {
  const world = await MemoryRuntime.open(t);
  const tree = await tempDir(t);
  await writeFile(join(tree, "file"), "one");
  const sandbox = await withMounts(world, { type: "bind", source: tree, target: "/tree", readOnly: true });
  const { id } = sandbox.main;
  const content = (): string => {
    const entries = world.guests.guest(sandbox.id).container(id).copies.get("mount-0")?.entries ?? [];
    return entries
      .map(({ path, is }) => (is?.case === "data" ? `${path}=${Buffer.from(is.value ?? [])}` : path))
      .join(" ");
  };
  assert.equal(content(), " file=one");
  await writeFile(join(tree, "file"), "two");
  await until(() => content() === " file=two");
  await world.reopen();
  await mkdir(join(tree, "sub"));
  await writeFile(join(tree, "sub", "more"), "three");
  await until(() => content() === " file=two sub sub/more=three");
  await rm(tree, { recursive: true });
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(content(), " file=two sub sub/more=three");
  const [info] = (await (await world.core.sandboxes.get(sandbox.id)).info()).containers;
  assert.deepEqual(info?.mounts, [{ type: "bind", source: tree, destination: "/tree", readOnly: true, how: "copy" }]);
  const missing = withMounts(world, { type: "bind", source: tree, target: "/tree", readOnly: true });
  await assert.rejects(missing, { reason: "MOUNT_SOURCE_MISSING" });
});

test("what was written to a volume is unmounted before the VM goes, however it goes", async (t) => {
  const world = await MemoryRuntime.open(t);
  const ended = async (how: (sandbox: SandboxHandle) => Promise<void>, ...mounts: MountConfig[]): Promise<boolean> => {
    const sandbox = await withMounts(world, ...mounts);
    const from = world.guests.calls.length;
    await how(sandbox);
    await sandbox.delete({ force: true });
    return world.guests.calls.slice(from).some((call) => call.startsWith("removeContainer"));
  };
  const exit = async (sandbox: SandboxHandle): Promise<void> => {
    world.guests.guest(sandbox.id).process(sandbox.main.id, "").exit(0);
    await sandbox.main.wait();
    await sandbox.stop();
  };
  assert.equal(await ended(async () => {}, DATA), true);
  assert.equal(await ended((sandbox) => sandbox.pause(), DATA), true);
  assert.equal(await ended(exit), true);
  assert.equal(await ended(async () => {}, READ), false);
});

test("what is wrong with a mount is told before a VM is started", async (t) => {
  const world = await MemoryRuntime.open(t);
  for (const mount of [
    { ...DATA, target: "data" },
    { type: "bind", source: "/nowhere", target: "/x" },
  ] as const) {
    await assert.rejects(withMounts(world, mount));
  }
  assert.deepEqual(world.hypervisor.live, []);
  assert.deepEqual(world.guests.calls, []);
});

test("a storage plug-in is told which sandbox has its volume, and when it has it no more", async (t) => {
  const directVolumesDir = await tempDir(t);
  const world = await MemoryRuntime.open(t, { directVolumesDir });
  const home = join(directVolumesDir, Buffer.from("/csi/v").toString("base64"));
  await mkdir(home);
  const device = join(directVolumesDir, "disk");
  await writeFile(device, "");
  const info = { "volume-type": "block", device, fstype: "ext4", metadata: { fsGroup: "7" } };
  await writeFile(join(home, "mountInfo.json"), JSON.stringify(info));
  const mount: MountConfig = { type: "bind", source: "/csi/v", target: "/v" };
  const sandbox = await withMounts(world, mount);
  const second = await further(sandbox, "second", mount);
  assert.deepEqual((await readdir(home)).sort(), [sandbox.id, "mountInfo.json"].sort());
  await second.delete({ force: true });
  assert.deepEqual((await readdir(home)).sort(), [sandbox.id, "mountInfo.json"].sort());
  await sandbox.delete({ force: true });
  assert.deepEqual(await readdir(home), ["mountInfo.json"]);
});

test("a new owner knows who has which volume, and clears away what was half made", async (t) => {
  const world = await MemoryRuntime.open(t);
  const sandbox = await withMounts(world, DATA);
  const volumesDir = join(world.deps.rootDir, "volumes");
  await mkdir(join(volumesDir, ".new-half"));
  await world.reopen();
  assert.deepEqual(await readdir(volumesDir), ["data"]);
  assert.ok(world.core.recovered.some(({ name }) => name === ".new-half"));
  await assert.rejects(withMounts(world, DATA), { reason: "VOLUME_IN_USE" });
  const again = await world.core.sandboxes.get(sandbox.id);
  assert.equal(pluggedIn(world, again).filter((path) => path.endsWith("disk.raw")).length, 1);
  await again.delete({ force: true });
  await world.core.volumes.remove("data");
  assert.deepEqual(await readdir(volumesDir), []);
});

test("a live mount has a program and a device of its own, and both go with its container", async (t) => {
  const world = await MemoryRuntime.open(t);
  const tree = await tempDir(t);
  await writeFile(join(tree, "file"), "");
  const live: MountConfig = { type: "bind", source: tree, target: "/live" };
  const sandbox = await withMounts(world, live, { ...live, source: join(tree, "file"), target: "/file" });
  const { vm } = world.guests.guest(sandbox.id);
  const serving = async (): Promise<number> =>
    new Set((await findBackEnds(vm.config.runDir)).map((each) => each.socketPath)).size;
  assert.equal(vm.config.sharedMemory, true);
  // Whoever wants to save the sandbox sees which mounts forbid it; and its programs are known without a search.
  const path = join(world.deps.rootDir, "sandboxes", sandbox.id, "sandbox.json");
  const state = Buffer.from((await world.deps.disk?.read(path, 1_000_000)) ?? []).toString();
  assert.equal(state.match(/"how":\s*"live"/g)?.length, 2);
  const servers = [...state.matchAll(/"server":\s*\{[^}]*"pid":\s*(\d+)/g)].map(([, pid]) => Number(pid));
  const found = (await findBackEnds(vm.config.runDir)).map(({ identity }) => identity.pid);
  assert.equal(servers.length, 2);
  assert.ok(servers.every((pid) => found.includes(pid)));
  const second = await further(sandbox, "second", { ...live, readOnly: true, how: "live" });
  assert.deepEqual([vm.devices.length, await serving()], [3, 3]);
  world.guests.fault("createContainer", { kind: "fail", error: new BelljarError("AGENT_FAILED", "no") });
  await assert.rejects(further(sandbox, "third", live), { reason: "AGENT_FAILED" });
  assert.deepEqual([vm.devices.length, await serving()], [3, 3]);
  await world.reopen();
  assert.deepEqual([vm.devices.length, await serving()], [3, 3]);
  const again = await world.core.sandboxes.get(sandbox.id);
  await (await again.containers.get(second.id)).delete({ force: true });
  assert.deepEqual([vm.devices.length, await serving()], [2, 2]);
  await again.delete({ force: true });
  assert.equal(await serving(), 0);
  const plain = await world.core.sandboxes.create({ image: "busybox" });
  await assert.rejects(further(plain, "late", live), {
    reason: "MOUNT_UNSUPPORTED",
    message: /was not started for it/,
  });
});
