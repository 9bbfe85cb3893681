import assert from "node:assert/strict";
import { mkdir, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { runTool } from "../base/index.ts";
import { takeRootfs } from "./handed-root.ts";
import { parseMounts } from "./host-mounts.ts";

test("a disk image is taken by its superblock: written to as it is, or below what the container writes", async (t) => {
  const ext4 = join(t.dir, "root.img");
  await writeFile(ext4, "");
  await truncate(ext4, 16 * 2 ** 20);
  await runTool("mke2fs", ["-q", "-F", "-t", "ext4", ext4]);
  await symlink(ext4, join(t.dir, "link"));
  const taken = await takeRootfs({ source: join(t.dir, "link") });
  assert.equal(taken.name, ext4);
  assert.deepEqual(taken.root, { kind: "disk", fileSystem: "ext4" });
  assert.match(taken.disks[0]?.serial ?? "", /^b-[0-9a-f]{18}$/);
  const readOnly = await takeRootfs({ source: ext4, type: "ext3", options: ["ro"] });
  assert.deepEqual(readOnly.root, { kind: "layers", fileSystem: "ext4" });
  assert.equal(readOnly.disks[0]?.readOnly, true);
  await assert.rejects(takeRootfs({ source: ext4, type: "xfs" }), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(takeRootfs({ source: join(t.dir, "none") }), { reason: "MOUNT_SOURCE_MISSING" });
  const text = join(t.dir, "text");
  await writeFile(text, "no file system".repeat(10_000));
  await assert.rejects(takeRootfs({ source: text }), { reason: "FILE_SYSTEM_UNKNOWN" });
  await truncate(text, 0);
  await assert.rejects(takeRootfs({ source: text }), { reason: "FILE_SYSTEM_UNKNOWN" });
});

test("an overlay of the host is taken layer by layer: the files behind its lower directories", async (t) => {
  const tree = join(t.dir, "tree");
  const dirs: string[] = [];
  for (const name of ["1", "2"]) {
    const snapshot = join(t.dir, name);
    await mkdir(join(snapshot, "fs"), { recursive: true });
    await mkdir(tree, { recursive: true });
    await writeFile(join(tree, "name"), name);
    await runTool("mkfs.erofs", ["--quiet", join(snapshot, "layer.erofs"), tree]);
    dirs.push(join(snapshot, "fs"));
  }
  const options = [`lowerdir=${[...dirs].reverse().join(":")}`];
  const paths = dirs.map((dir) => join(dir, "../layer.erofs"));
  const beside = await takeRootfs({ type: "overlay", source: "overlay", options });
  assert.deepEqual(
    beside.disks.map(({ path }) => path),
    paths,
    "bottom first",
  );
  // Through a loop device, as older kernels need it.
  await runTool("mount", ["-t", "erofs", "-o", "loop,ro", paths[0] ?? "", dirs[0] ?? ""]);
  t.after(() => runTool("umount", [dirs[0] ?? ""]));
  const mounted = await takeRootfs({ type: "overlay", options });
  assert.deepEqual(mounted, beside);
  assert.deepEqual((await takeRootfs({ type: "bind", source: dirs[0] })).disks, beside.disks.slice(0, 1));

  const upper = join(t.dir, "upper");
  await mkdir(upper);
  await takeRootfs({ type: "overlay", options: [...options, `upperdir=${upper}`] });
  await writeFile(join(upper, "written"), "");
  const withUpper = takeRootfs({ type: "overlay", options: [...options, `upperdir=${upper}`] });
  await assert.rejects(withUpper, { reason: "MOUNT_UNSUPPORTED" });
  await assert.rejects(takeRootfs({ type: "overlay", options: [`lowerdir=${tree}`] }), { reason: "MOUNT_UNSUPPORTED" });
  await assert.rejects(takeRootfs({ type: "overlay", options: [] }), { reason: "INVALID_ARGUMENT" });
});

test("a disk that this host has mounted to write to is refused", async (t) => {
  const image = join(t.dir, "root.img");
  await writeFile(image, "");
  await truncate(image, 16 * 2 ** 20);
  await runTool("mke2fs", ["-q", "-F", "-t", "ext4", image]);
  const dir = join(t.dir, "mounted");
  await mkdir(dir);
  await runTool("mount", ["-o", "loop", image, dir]);
  t.after(() => runTool("umount", [dir]));
  await assert.rejects(takeRootfs({ source: image }), { reason: "VOLUME_IN_USE" });
});

test("names in the table of mounts", async () => {
  const line = String.raw`36 35 7:1 / /mnt/a\040b rw,noatime shared:1 - erofs /dev/loop1 ro,user_xattr`;
  assert.deepEqual(parseMounts(`${line}\n\n`), [
    { target: "/mnt/a b", type: "erofs", source: "/dev/loop1", device: "7:1", readOnly: true },
  ]);
});
