/** Volumes on disk, what disks say they are, and what storage plug-ins say. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { BelljarError, mountLimits, silentLog } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";
import { checkQcow2, detectFileSystem, forgetSandbox, readDirectVolume, recordSandbox, VolumeStore } from "./index.ts";

const SIZE = mountLimits.volumeMinBytes;

async function store(t: TestScope): Promise<{ dir: string; store: VolumeStore; fail: { next: boolean } }> {
  const dir = join(await tempDir(t), "volumes");
  const fail = { next: false };
  const makeDisk = async (path: string): Promise<void> => {
    await writeFile(path, "data");
    if (fail.next) throw new BelljarError("DISK_FULL", "no room");
  };
  const deps = { dir, disk: systemDisk, log: silentLog, nowMs: () => 1_700_000_000_000, makeDisk };
  return { dir, store: new VolumeStore(deps), fail };
}

test("volumes: made once, found again, listed, removed; a failure leaves nothing", async (t) => {
  const { dir, store: volumes, fail } = await store(t);
  const made = await volumes.create({ name: "data", sizeBytes: SIZE, labels: { b: "2", a: "1" } });
  assert.equal(made.path, join(dir, "data", "disk.raw"));
  assert.deepEqual(await volumes.create({ name: "data" }), made);
  assert.deepEqual(await volumes.create({ name: "data", sizeBytes: SIZE }), made);
  await assert.rejects(volumes.create({ name: "data", sizeBytes: SIZE * 2 }), { reason: "VOLUME_EXISTS" });
  const unnamed = await volumes.create({});
  assert.deepEqual([unnamed.named, made.named, unnamed.sizeBytes], [false, true, mountLimits.volumeDefaultBytes]);
  assert.deepEqual((await volumes.list()).map(({ name }) => name).sort(), ["data", unnamed.name].sort());
  fail.next = true;
  await assert.rejects(volumes.create({ name: "more" }), { reason: "DISK_FULL" });
  for (const name of ["../x", "", ".new-x", "a/b", "-x"]) {
    await assert.rejects(volumes.create({ name }), { reason: "INVALID_ARGUMENT" });
  }
  await assert.rejects(volumes.create({ name: "small", sizeBytes: 1 }), { reason: "INVALID_ARGUMENT" });
  await volumes.remove(unnamed.name, () => {});
  await assert.rejects(
    volumes.remove(unnamed.name, () => {}),
    { reason: "VOLUME_NOT_FOUND" },
  );
  const used = new BelljarError("VOLUME_IN_USE", "used");
  await assert.rejects(
    volumes.remove("data", () => {
      throw used;
    }),
    used,
  );
  assert.deepEqual(await readdir(dir), ["data"]);
});

test("volumes: what was cut short is swept; what is damaged is left and told", async (t) => {
  const { dir, store: volumes } = await store(t);
  await volumes.create({ name: "good" });
  await volumes.create({ name: "bad" });
  await writeFile(join(dir, "bad", "volume.json"), "not a state");
  for (const name of [".new-half", ".old-gone-abc"]) await mkdir(join(dir, name, "deep"), { recursive: true });
  assert.deepEqual((await volumes.sweep()).sort(), [".new-half", ".old-gone-abc"]);
  assert.deepEqual(
    (await volumes.list()).map(({ name }) => name),
    ["good"],
  );
  await assert.rejects(volumes.get("bad"), { reason: "STATE_CORRUPT" });
  await assert.rejects(volumes.create({ name: "bad" }), { reason: "STATE_CORRUPT" });
  await rm(join(dir, "bad", "volume.json"));
  await assert.rejects(volumes.create({ name: "bad" }), { reason: "STATE_MISSING" });
  assert.equal(await readFile(join(dir, "bad", "disk.raw"), "utf8"), "data");
});

test("file systems are known by their superblocks, and everything else by name", async (t) => {
  const path = join(await tempDir(t), "disk");
  const cases: readonly [number, string | readonly number[], string | RegExp][] = [
    [1080, [0x53, 0xef], "ext4"],
    [1024, [0xe2, 0xe1, 0xf5, 0xe0], "erofs"],
    [0, "XFSB", "xfs"],
    [65_600, "_BHRfS_M", "btrfs"],
    [0, "hsqs", "squashfs"],
    [32_769, "CD001", /ISO 9660/],
    [4086, "SWAPSPACE2", /swap space/],
    [0, [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe], /LUKS/],
    [0, [0x51, 0x46, 0x49, 0xfb], /format=qcow2/],
    [510, [0x55, 0xaa], /partition table/],
    [0, "", /no file system that is known/],
  ];
  for (const [at, bytes, wanted] of cases) {
    const disk = Buffer.alloc(70_000);
    disk.set(typeof bytes === "string" ? Buffer.from(bytes) : bytes, at);
    await writeFile(path, disk);
    if (typeof wanted === "string") assert.equal(await detectFileSystem(path), wanted);
    else await assert.rejects(detectFileSystem(path), { reason: "FILE_SYSTEM_UNKNOWN", message: wanted });
  }
  await writeFile(path, "short");
  await assert.rejects(detectFileSystem(path), { reason: "FILE_SYSTEM_UNKNOWN" });
});

test("a qcow2 image that leads to another file of the host is refused", async (t) => {
  const path = join(await tempDir(t), "disk.qcow2");
  const header = Buffer.alloc(512);
  header.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
  await writeFile(path, header);
  await checkQcow2(path);
  const backed = Buffer.from(header);
  backed.writeBigUInt64BE(400n, 8);
  const withDataFile = Buffer.from(header);
  withDataFile.writeBigUInt64BE(4n, 72);
  for (const bad of [backed, withDataFile, Buffer.alloc(512)]) {
    await writeFile(path, bad);
    await assert.rejects(checkQcow2(path), { reason: "INVALID_ARGUMENT" });
  }
});

test("direct-assigned volumes: read, answered with the sandbox's id, refused when they make no sense", async (t) => {
  const dir = await tempDir(t);
  const path = "/var/lib/kubelet/pods/x?>/volumes/y";
  const home = join(dir, Buffer.from(path).toString("base64url").padEnd(48, "="));
  await mkdir(home);
  const write = (more: object): Promise<void> =>
    writeFile(
      join(home, "mountInfo.json"),
      JSON.stringify({ "volume-type": "block", device: "/dev/sdx", fstype: "ext4", ...more }),
    );
  assert.equal(await readDirectVolume(dir, path), undefined);
  await write({ options: ["ro", "noload"], metadata: { fsGroup: "3000", fsGroupChangePolicy: "OnRootMismatch" } });
  assert.deepEqual(await readDirectVolume(dir, path), {
    device: "/dev/sdx",
    fileSystem: "ext4",
    options: ["noload"],
    readOnly: true,
    fsGroup: { gid: 3000, always: false },
  });
  await write({});
  assert.equal((await readDirectVolume(dir, path))?.fsGroup, undefined);
  await recordSandbox(dir, path, "0123456789ab");
  assert.deepEqual((await readdir(home)).sort(), ["0123456789ab", "mountInfo.json"]);
  await forgetSandbox(dir, path, "0123456789ab");
  await forgetSandbox(dir, path, "0123456789ab");
  const wrong: readonly object[] = [
    { "volume-type": "nfs" },
    { metadata: { fsGroup: "-1" } },
    { metadata: { fsGroupChangePolicy: "Always" } },
    { metadata: { fsGroup: "1", fsGroupChangePolicy: "Sometimes" } },
    { device: 5 },
  ];
  for (const more of wrong) {
    await write(more);
    await assert.rejects(readDirectVolume(dir, path), { reason: "INVALID_ARGUMENT" });
  }
});
