/** What the agent mounts beside root file systems: disks, copies of the host's files, and whose they are. */
import assert from "node:assert/strict";
import { lstat, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../src/base/errors.ts";
import { type CopiedEntry, CopiedEntrySchema } from "../src/protocol/index.ts";
import { Copies } from "./copies.ts";
import { applyFsGroup } from "./fs-group.ts";
import { type DiskMount, GuestMounts } from "./guest-mounts.ts";
import { runTool } from "./tools.ts";

async function scratch(): Promise<{ dir: string } & AsyncDisposable> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-mounts-"));
  return { dir, [Symbol.asyncDispose]: async () => await rm(dir, { recursive: true }) };
}

const entry = (
  path: string,
  is: NonNullable<MessageInitShape<typeof CopiedEntrySchema>["is"]>,
  mode = 0o644,
): CopiedEntry =>
  create(CopiedEntrySchema, { path, mode, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, is });
const file = (path: string, text: string, mode?: number): CopiedEntry =>
  entry(path, { case: "data", value: Buffer.from(text) }, mode);
const directory = (path: string): CopiedEntry => entry(path, { case: "directory", value: true }, 0o755);
const link = (path: string, target: string): CopiedEntry => entry(path, { case: "linkTarget", value: target });

const DISK: DiskMount = {
  serial: "v-1",
  fileSystem: "ext4",
  options: [],
  readOnly: false,
  directory: "data",
  copyUpFrom: "/var/data",
  fsGroup: undefined,
  fsGroupAlways: false,
};

/** A guest with the disk `v-1`, where mounting only makes a note. */
async function guest(dir: string, busy = { times: 0 }): Promise<{ mounts: GuestMounts; said: string[] }> {
  const said: string[] = [];
  await mkdir(join(dir, "sys/block/sda/device"), { recursive: true });
  await writeFile(join(dir, "sys/block/sda/device/vpd_pg80"), "\0\0\0\0v-1");
  await writeFile(join(dir, "sda"), "");
  const mounts = new GuestMounts({
    sysDir: join(dir, "sys"),
    devDir: dir,
    disksDir: join(dir, "disks"),
    runTool: async (command, args) => {
      const [what = ""] = args;
      if (what === "cp") return await runTool("cp", args.slice(1));
      said.push(args.join(" ").replaceAll(dir, ""));
      if (what === "umount" && busy.times > 0) {
        busy.times -= 1;
        throw new BelljarError("AGENT_FAILED", `${command}: busy`);
      }
    },
  });
  return { mounts, said };
}

test("a disk is mounted once for all, filled from the first image, and let go by the last", async () => {
  await using at = await scratch();
  const busy = { times: 0 };
  const { mounts, said } = await guest(at.dir, busy);
  const rootfs = join(at.dir, "rootfs");
  await mkdir(join(rootfs, "real/data"), { recursive: true, mode: 0o750 });
  await writeFile(join(rootfs, "real/data/seed"), "seed");
  // An absolute link leads into the container's root, not the guest's.
  await symlink("/real", join(rootfs, "var"));
  const [first, second] = await Promise.all([mounts.take("a", DISK, rootfs), mounts.take("b", DISK, rootfs)]);
  assert.equal(first, join(at.dir, "disks/v-1/data"));
  assert.equal(second, first);
  assert.equal(await readFile(join(first, "seed"), "utf8"), "seed");
  await mounts.release("a", "v-1");
  await mounts.release("a", "v-1");
  busy.times = 2;
  // The twin's mount is no mount: what is in it keeps the directory, as nothing would in a guest.
  await mounts.release("b", "v-1");
  await mounts.release("b", "v-1");
  assert.deepEqual(said, [
    "mount -t ext4 -o rw,nodev,noatime,noinit_itable,no_prefetch_block_bitmaps /sda /disks/v-1",
    "sync -f /disks/v-1/data.new",
    "umount /disks/v-1",
    "umount /disks/v-1",
    "umount /disks/v-1",
  ]);
});

test("a disk that cannot be used is let go of; options that cannot be are refused", async () => {
  await using at = await scratch();
  const { mounts, said } = await guest(at.dir);
  await assert.rejects(mounts.take("a", { ...DISK, readOnly: true }, at.dir), { message: /nothing on it yet/ });
  assert.deepEqual(
    said.map((line) => line.split(" ")[0]),
    ["mount", "umount"],
  );
  const wrong: readonly Partial<DiskMount>[] = [
    { fileSystem: "ext4;x" },
    { options: ["a,b"] },
    { directory: "../x" },
    { directory: "a/b" },
    { directory: ".." },
  ];
  for (const change of wrong) {
    assert.throws(() => mounts.take("a", { ...DISK, ...change }, at.dir), { reason: "INVALID_ARGUMENT" });
  }
});

test("what an image has that is no directory fills nothing", async () => {
  await using at = await scratch();
  const { mounts } = await guest(at.dir);
  const rootfs = join(at.dir, "rootfs");
  await mkdir(rootfs);
  await symlink("../../../../etc/passwd", join(rootfs, "var"));
  const lies = await mounts.take("a", DISK, rootfs);
  assert.deepEqual(await readdir(lies), []);
});

test("a group gets a volume: all of it, links themselves, and again only when it must", async () => {
  await using at = await scratch();
  const top = join(at.dir, "top");
  await mkdir(join(top, "sub"), { recursive: true, mode: 0o700 });
  await writeFile(join(at.dir, "outside"), "", { mode: 0o600 });
  await writeFile(join(top, "sub", "file"), "", { mode: 0o600 });
  await symlink("../outside", join(top, "link"));
  const gid = process.getgid?.() ?? 0;
  await applyFsGroup(top, gid, true);
  const mode = async (path: string): Promise<number> => (await stat(path)).mode & 0o7777;
  assert.equal((await mode(top)) & 0o2070, 0o2070);
  assert.equal((await mode(join(top, "sub"))) & 0o2070, 0o2070);
  assert.equal(await mode(join(top, "sub", "file")), 0o660);
  assert.equal(await mode(join(at.dir, "outside")), 0o600);
  await writeFile(join(top, "late"), "", { mode: 0o600 });
  await applyFsGroup(top, gid, false);
  assert.equal(await mode(join(top, "late")), 0o600);
  await applyFsGroup(top, gid, true);
  assert.equal(await mode(join(top, "late")), 0o660);
});

test("a copied tree becomes what the host says, one whole file at a time", async () => {
  await using at = await scratch();
  const copies = new Copies(join(at.dir, "copies"));
  const place = await copies.add("mount-0", false);
  await copies.apply("mount-0", [directory(""), directory("v1"), file("v1/key", "one", 0o400), link("now", "v1")]);
  const before = (await lstat(join(place, "v1/key"))).ino;
  await copies.apply("mount-0", [directory(""), directory("v1"), file("v1/key", "one", 0o400), link("now", "v1")]);
  assert.equal((await lstat(join(place, "v1/key"))).ino, before);
  await copies.apply("mount-0", [directory(""), directory("v2"), file("v2/key", "two"), link("now", "v2")]);
  assert.deepEqual((await readdir(place)).sort(), ["now", "v2"]);
  assert.equal(await readlink(join(place, "now")), "v2");
  assert.equal(await readFile(join(place, "now/key"), "utf8"), "two");
  await copies.apply("mount-0", [directory(""), file("v2", "a file now"), directory("now"), file("now/x", "")]);
  assert.equal(await readFile(join(place, "v2"), "utf8"), "a file now");
  assert.deepEqual(await readdir(join(place, "now")), ["x"]);
  await copies.apply("mount-0", [directory("")]);
  assert.deepEqual(await readdir(place), []);
});

test("a copied file stays the same file; what leads out of its place is refused", async () => {
  await using at = await scratch();
  const copies = new Copies(join(at.dir, "copies"));
  const place = await copies.add("mount-1", true);
  const before = (await lstat(place)).ino;
  for (const text of ["a longer text", "short", ""]) {
    await copies.apply("mount-1", [file("", text)]);
    assert.equal(await readFile(place, "utf8"), text);
  }
  assert.equal((await lstat(place)).ino, before);
  await copies.add("mount-2", false);
  const wrong: readonly (readonly CopiedEntry[])[] = [
    [],
    [file("", "x")],
    [directory(""), file("../x", "x")],
    [directory(""), file("/x", "x")],
    [directory(""), file("a//b", "x")],
    [directory(""), file("", "x")],
    [directory(""), entry("a", { case: undefined })],
  ];
  for (const entries of wrong) await assert.rejects(copies.apply("mount-2", entries), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(copies.apply("mount-3", [directory("")]), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(copies.add("../x", false), { reason: "INVALID_ARGUMENT" });
});

test("a directory of the host is mounted by its tag; a file is in one of its own", async () => {
  await using at = await scratch();
  const { mounts, said } = await guest(at.dir);
  const place = join(at.dir, "live");
  assert.equal(await mounts.share(place, { tag: "f-1", readOnly: true, isFile: false }), place);
  assert.equal(await mounts.share(place, { tag: "f-1", readOnly: false, isFile: true }), join(place, "file"));
  await mounts.unshare(place);
  assert.deepEqual(said, [
    "modprobe virtiofs",
    "mount -t virtiofs -o ro,nodev f-1 /live",
    "modprobe virtiofs",
    "mount -t virtiofs -o rw,nodev f-1 /live",
  ]);
  const wrong = mounts.share(place, { tag: "a b", readOnly: false, isFile: false });
  await assert.rejects(wrong, { reason: "INVALID_ARGUMENT" });
});
