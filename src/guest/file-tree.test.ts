import assert from "node:assert/strict";
import { test } from "node:test";
import { extract } from "tar-stream";
import { runTool } from "../base/index.ts";
import { cpioArchive } from "./cpio.ts";
import { FileTree } from "./file-tree.ts";
import { tarArchive } from "./tar.ts";

function sample(): FileTree {
  return new FileTree()
    .file("etc/b", "bb", 0o600)
    .directory("tmp", 0o1777)
    .symlink("bin", "usr/bin")
    .file("etc/a.d/x", "");
}

test("parents are made, and come before what is in them", () => {
  assert.deepEqual(
    sample()
      .entries()
      .map(([path]) => path),
    ["bin", "etc", "etc/a.d", "etc/a.d/x", "etc/b", "tmp"],
  );
});

test("what would leave the tree, be written twice or lie below a file is refused", () => {
  for (const path of ["/etc", "../x", "a/../../x", "", "a//b"]) {
    assert.throws(() => new FileTree().file(path, "x"), /is not a path inside a tree/, path);
  }
  assert.throws(() => sample().file("etc/b", "again"), /etc\/b would be written twice/);
  assert.throws(() => sample().file("bin/sh", "x"), /bin\/sh lies below bin, which is not a directory/);
});

test("the order in which entries were added does not show in the archives", async () => {
  const other = new FileTree()
    .file("etc/a.d/x", "")
    .symlink("bin", "usr/bin")
    .directory("tmp", 0o1777)
    .file("etc/b", "bb", 0o600);
  assert.ok(cpioArchive(sample()).equals(cpioArchive(other)));
  assert.ok((await tarArchive(sample())).equals(await tarArchive(other)));
});

test("bsdtar reads the cpio archive as it was meant", async () => {
  const listing = await runTool("bsdtar", ["-tvf", "-"], { input: cpioArchive(sample()), env: { TZ: "UTC" } });
  const lines = listing.stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => line.split(/\s+/));
  assert.deepEqual(
    lines.map(([mode, , owner, group, size, ...rest]) => [mode, owner, group, size, rest.slice(3).join(" ")]),
    [
      ["lrwxrwxrwx", "0", "0", "7", "bin -> usr/bin"],
      ["drwxr-xr-x", "0", "0", "0", "etc"],
      ["drwxr-xr-x", "0", "0", "0", "etc/a.d"],
      ["-rw-r--r--", "0", "0", "0", "etc/a.d/x"],
      ["-rw-------", "0", "0", "2", "etc/b"],
      ["drwxrwxrwt", "0", "0", "0", "tmp"],
    ],
  );
});

test("the tar archive has modes, owners and times fixed", async () => {
  const seen: unknown[] = [];
  const reader = extract();
  reader.end(await tarArchive(sample()));
  for await (const entry of reader) {
    const { name, mode, uid, gid, type, linkname, mtime } = entry.header;
    seen.push([name, mode, uid, gid, type, linkname ?? "", Number(mtime)]);
    entry.resume();
  }
  assert.deepEqual(seen[0], ["bin", 0o777, 0, 0, "symlink", "usr/bin", 0]);
  assert.deepEqual(seen[4], ["etc/b", 0o600, 0, 0, "file", "", 0]);
  assert.deepEqual(seen[5], ["tmp", 0o1777, 0, 0, "directory", "", 0]);
});
