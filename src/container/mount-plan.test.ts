/** What becomes of each mount that is asked for: by its type, its source, and how it is to reach the guest. */
import assert from "node:assert/strict";
import { mkdir, realpath, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { mountLimits } from "../base/index.ts";
import { readTree } from "./copied-tree.ts";
import type { MountConfig } from "./mount-config.ts";
import { guestMounts, placeMounts } from "./mount-place.ts";
import { type MountHost, type MountPlan, planMounts } from "./mount-plan.ts";
import { buildMounts } from "./mounts.ts";

interface World {
  readonly dir: string;
  readonly host: MountHost;
  plan(...mounts: MountConfig[]): Promise<MountPlan>;
}

async function world(t: TestScope): Promise<World> {
  const dir = await realpath(await tempDir(t));
  const directVolumesDir = join(dir, "direct");
  await mkdir(directVolumesDir);
  await mkdir(join(dir, "tree"));
  await writeFile(join(dir, "tree", "file"), "text");
  const disk = Buffer.alloc(4096);
  disk.set([0x53, 0xef], 1080);
  await writeFile(join(dir, "disk.img"), disk);
  const host: MountHost = {
    directVolumesDir,
    hold: () => ({ [Symbol.dispose]: () => {} }),
    volume: async (name, sizeBytes = 1) => ({
      name,
      createdAtMs: 0,
      sizeBytes,
      usedBytes: 0,
      named: true,
      labels: {},
      path: join(dir, name),
    }),
  };
  return { dir, host, plan: (...mounts) => planMounts(host, mounts) };
}

const states = (plan: MountPlan): unknown =>
  plan.mounts.map(({ state }) => [state.destination, state.type, state.how, state.readOnly]);

test("a bind is live unless it is read-only and small; what cannot be copied says so", async (t) => {
  const { dir, plan } = await world(t);
  const bind = (target: string, more: Partial<MountConfig> = {}): MountConfig => ({
    type: "bind",
    source: join(dir, "tree"),
    target,
    ...more,
  });
  const planned = await plan(
    bind("/a"),
    bind("/b", { readOnly: true }),
    bind("/c", { how: "copy" }),
    bind("/d", { how: "disk" }),
    bind("/e", { source: join(dir, "tree/file"), readOnly: true }),
  );
  assert.deepEqual(states(planned), [
    ["/a", "bind", "live", false],
    ["/b", "bind", "copy", true],
    ["/c", "bind", "copy", true],
    ["/d", "bind", "disk", false],
    ["/e", "bind", "copy", true],
  ]);
  assert.equal(planned.needsSharedMemory, true);
  assert.equal(planned.mounts[3]?.own?.filledFrom, join(dir, "tree"));
  assert.equal(planned.mounts[4]?.state.isFile, true);
  await truncate(join(dir, "tree/file"), mountLimits.copyMaxBytes + 1);
  assert.deepEqual(states(await plan(bind("/b", { readOnly: true }))), [["/b", "bind", "live", true]]);
  await assert.rejects(plan(bind("/b", { how: "copy" })), { reason: "MOUNT_TOO_LARGE", message: /tree has more than/ });
});

test("sources that are not there: told, or made when -v asks for it", async (t) => {
  const { dir, plan } = await world(t);
  const source = join(dir, "missing/deep");
  const message = `bind source path does not exist: ${source}`;
  await assert.rejects(plan({ type: "bind", source, target: "/a" }), { reason: "MOUNT_SOURCE_MISSING", message });
  await plan({ type: "bind", source, target: "/a", createSource: true, readOnly: true });
  await plan({ type: "bind", source, target: "/a", readOnly: true });
  await symlink("/nowhere", join(dir, "dangling"));
  const dangling = join(dir, "dangling");
  await assert.rejects(plan({ type: "bind", source: dangling, target: "/a" }), { reason: "MOUNT_SOURCE_MISSING" });
  await assert.rejects(plan({ type: "bind", source: "/dev/null", target: "/a" }), { reason: "MOUNT_UNSUPPORTED" });
});

test("volumes and disks: one disk however often it is mounted, and in one way", async (t) => {
  const { dir, plan } = await world(t);
  const source = join(dir, "disk.img");
  const planned = await plan(
    { type: "volume", source: "data", target: "/data" },
    { type: "volume", source: "data", target: "/again" },
    { type: "volume", target: "/own", sizeBytes: 5 },
    { type: "disk", source, target: "/disk", readOnly: true },
    { type: "bind", source, target: "/disk2", readOnly: true, options: ["io.katacontainers.fs-opt.block_device=file"] },
  );
  const placed = placeMounts(planned, "0123456789ab", "/disks");
  assert.deepEqual(
    placed.disks.map(({ path, readOnly }) => [path, readOnly]),
    [
      [join(dir, "data"), false],
      ["/disks/m-0123456789ab-2.raw", false],
      [source, true],
    ],
  );
  assert.deepEqual([...placed.own], [["m-0123456789ab-2", { sizeBytes: 5, filledFrom: undefined }]]);
  const requests = guestMounts("0123456789ab", placed.mounts, placed.disks);
  const [first, , , disk] = requests.map(({ from }) => (from.case === "disk" ? from.value : undefined));
  assert.deepEqual([first?.directory, first?.copyUpFrom, first?.fileSystem], ["data", "/data", "ext4"]);
  assert.deepEqual([disk?.directory, disk?.copyUpFrom, disk?.readOnly], ["", "", true]);
  const twice = plan(
    { type: "volume", source: "data", target: "/data" },
    { type: "volume", source: "data", target: "/again", readOnly: true },
  );
  await assert.rejects(twice, { reason: "INVALID_ARGUMENT", message: /once read-only and once not/ });
  await assert.rejects(plan({ type: "disk", source: join(dir, "tree/file"), target: "/x" }), {
    reason: "FILE_SYSTEM_UNKNOWN",
  });
});

test("direct-assigned volumes are disks; system paths and devices are the guest's own", async (t) => {
  const { dir, host, plan } = await world(t);
  const source = "/csi/volume";
  const home = join(host.directVolumesDir, Buffer.from(source).toString("base64"));
  await mkdir(home);
  const info = { "volume-type": "block", device: join(dir, "disk.img"), fstype: "ext4", metadata: { fsGroup: "7" } };
  await writeFile(join(home, "mountInfo.json"), JSON.stringify(info));
  const planned = await plan(
    { type: "bind", source, target: "/data" },
    { type: "bind", source: "/sys", target: "/sys" },
    { type: "bind", source: "/sys/kernel", target: "/host/kernel" },
    { type: "bind", source: "/dev/shm", target: "/dev/shm" },
    { type: "bind", source: "/dev", target: "/dev" },
  );
  assert.deepEqual(states(planned), [
    ["/data", "bind", "disk", false],
    ["/sys", "bind", "none", false],
    ["/dev", "bind", "none", false],
    ["/host/kernel", "bind", "guest", false],
    ["/dev/shm", "bind", "none", false],
  ]);
  const [{ state }] = planned.mounts as readonly [MountPlan["mounts"][number]];
  assert.deepEqual(state.disk?.fsGroup, { gid: 7, always: true });
  assert.equal(state.disk?.directVolume, source);
});

test("targets: absolute, one mount each, in the order of their depth, in place of the system's", async (t) => {
  const { plan } = await world(t);
  const tmpfs = (target: string, more: Partial<MountConfig> = {}): MountConfig => ({ type: "tmpfs", target, ...more });
  const planned = await plan(
    tmpfs("/a/b/c"),
    tmpfs("/a/../a/./b/"),
    tmpfs("/dev/shm", { sizeBytes: 4096, mode: 0o700 }),
  );
  const { mounts } = placeMounts(planned, "0123456789ab", "/disks");
  const spec = buildMounts({ tmpfs: ["/a"] }, mounts).filter(({ destination }) => /^\/a|shm$/.test(destination));
  assert.deepEqual(
    spec.map(({ destination }) => destination),
    ["/a", "/a/b", "/dev/shm", "/a/b/c"],
  );
  assert.deepEqual(spec[2]?.options.slice(-2), ["size=4096", "mode=700"]);
  const refused: readonly MountConfig[] = [
    tmpfs("relative"),
    tmpfs("/"),
    tmpfs("/x/.."),
    tmpfs("/proc/sys"),
    tmpfs("/a\0"),
    tmpfs("/a", { source: "/x" }),
    tmpfs("/a", { how: "copy" }),
    tmpfs("/a", { options: ["remount"] }),
    tmpfs("/a", { options: ["a,b"] }),
    { type: "bind", source: "relative", target: "/a" },
    { type: "bind", source: "/tmp", target: "/a", sizeBytes: 5 },
    { type: "bind", source: "/tmp", target: "/a", how: "copy", readOnly: false },
    { type: "volume", source: "v", target: "/a", how: "live" },
  ];
  for (const mount of refused) await assert.rejects(plan(mount), { reason: "INVALID_ARGUMENT" }, JSON.stringify(mount));
  await assert.rejects(plan(tmpfs("/a"), tmpfs("/a/")), { message: /two mounts have the target \/a/ });
  await assert.rejects(plan({ type: "volume", source: "v", target: "/a", propagation: "rshared" }), {
    reason: "MOUNT_UNSUPPORTED",
  });
  const many = Array.from({ length: mountLimits.mountsMax + 1 }, (_, index) => tmpfs(`/${index}`));
  await assert.rejects(plan(...many), { reason: "INVALID_ARGUMENT" });
});

test("a tree to copy: files, directories and links as they are; its fingerprint changes with them", async (t) => {
  const { dir } = await world(t);
  const source = join(dir, "tree");
  await mkdir(join(source, "..data_1"));
  await symlink("..data_1", join(source, "..data"));
  const before = await readTree(source);
  assert.deepEqual(
    before.entries.map(({ path, kind }) => [path, kind]),
    [
      ["", "directory"],
      ["..data", "link"],
      ["..data_1", "directory"],
      ["file", "file"],
    ],
  );
  assert.deepEqual(before.directories, [source, join(source, "..data_1")]);
  assert.equal((await readTree(source)).fingerprint, before.fingerprint);
  await writeFile(join(source, "file"), "TEXT");
  assert.notEqual((await readTree(source)).fingerprint, before.fingerprint);
  for (let index = 0; index <= mountLimits.copyEntriesMax; index += 1) await writeFile(join(source, `f${index}`), "");
  await assert.rejects(readTree(source), { reason: "MOUNT_TOO_LARGE", message: /more than 512 files/ });
  await assert.rejects(readTree(join(dir, "gone")), { code: "ENOENT" });
});
