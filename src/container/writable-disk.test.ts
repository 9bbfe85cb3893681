import assert from "node:assert/strict";
import { mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { runTool } from "../base/index.ts";
import { TEMPORARY_MARK } from "../store/index.ts";
import { diskMaker, sweepBlanks } from "./writable-disk.ts";

const SIZE = 64 * 2 ** 20;
const QCOW2 = { empty: false, signal: undefined, format: "qcow2" } as const;

test("disks of one size share one empty file system, and none of them needs the place where it is kept", async (t) => {
  const blanks = join(t.dir, "blanks");
  const make = diskMaker(blanks);
  const dirs = ["a", "b", "c"].map((name) => join(t.dir, name));
  await Promise.all(dirs.map((dir) => make(join(dir, "w.qcow2"), SIZE, QCOW2)));
  await make(join(t.dir, "a/second.qcow2"), SIZE, QCOW2);
  const name = `blank-${SIZE}.raw`;
  const { ino } = await stat(join(blanks, name));
  assert.deepEqual(await readdir(blanks), [name]);
  for (const dir of dirs) {
    const blank = await stat(join(dir, name));
    assert.equal(blank.ino, ino);
    assert.equal(blank.mode & 0o777, 0o400);
    assert.ok((await stat(join(dir, "w.qcow2"))).blocks * 512 < 64 * 1024);
  }
  await runTool("e2fsck", ["-fn", join(dirs[0] ?? "", name)]);
});

test("what somebody left who died while he made an empty file system is removed, and nothing else", async (t) => {
  const blanks = join(t.dir, "blanks");
  assert.deepEqual(await sweepBlanks(blanks), []);
  await diskMaker(blanks)(join(t.dir, "w.qcow2"), SIZE, QCOW2);
  const left = `${TEMPORARY_MARK}abc`;
  await mkdir(join(blanks, left));
  await writeFile(join(blanks, left, "blank"), "");
  assert.deepEqual(await sweepBlanks(blanks), [left]);
  assert.deepEqual(await readdir(blanks), [`blank-${SIZE}.raw`]);
});

test("a disk for swap has no file system and no other file", async (t) => {
  const path = join(t.dir, "disks/s.raw");
  await diskMaker(join(t.dir, "blanks"))(path, SIZE, { empty: true, signal: undefined, format: "raw" });
  assert.deepEqual(await readdir(join(t.dir, "disks")), ["s.raw"]);
  assert.equal((await stat(path)).size, SIZE);
});
