import assert from "node:assert/strict";
import { test } from "node:test";
import { buildProgram } from "../program.ts";
import { findCandidates, type Names } from "./candidates.ts";

const names: Names = {
  sandboxes: async () => ["web", "worker", "db"],
  images: async () => ["busybox", "node"],
  volumes: async () => ["data"],
  checkpoints: async () => ["before", "after"],
  templates: async () => ["warm"],
};

const complete = (...words: string[]): Promise<string[]> =>
  findCandidates(
    buildProgram({ output: undefined }, () => {}),
    words,
    names,
  );

test("commands, and commands of commands", async () => {
  assert.ok((await complete("re")).includes("rename"));
  assert.ok((await complete("")).includes("run"));
  assert.ok(!(await complete("")).includes("__complete"));
  assert.deepEqual(await complete("volume", "i"), ["inspect"]);
});

test("options, and the choices of their values", async () => {
  assert.deepEqual(await complete("run", "--memory"), ["--memory", "--memory-max"]);
  assert.deepEqual(await complete("run", "--accel", ""), ["auto", "kvm", "tcg"]);
  assert.deepEqual(await complete("run", "--rm", "--log-level", "w"), ["warn"]);
  assert.deepEqual(await complete("--log-level", "w"), ["warn"]);
  assert.deepEqual(await complete("--root", "/a", "dae"), ["daemon"]);
  assert.deepEqual(await complete("run", "--accel=t"), ["--accel=tcg"]);
  // As bash splits it.
  assert.deepEqual(await complete("run", "--accel", "="), ["auto", "kvm", "tcg"]);
  assert.deepEqual(await complete("run", "--accel", "=", "t"), ["tcg"]);
});

test("names of what an argument or option names", async () => {
  assert.deepEqual(await complete("stop", "w"), ["web", "worker"]);
  assert.deepEqual(await complete("stop", "web", "d"), ["db"]);
  assert.deepEqual(await complete("run", "--sandbox", "d"), ["db"]);
  assert.deepEqual(await complete("run", "--rm", "-m", "256m", "b"), ["busybox"]);
  assert.deepEqual(await complete("image", "rm", "n"), ["node"]);
  assert.deepEqual(await complete("volume", "inspect", ""), ["data"]);
  assert.deepEqual(await complete("run", "--template", ""), ["warm"]);
  assert.deepEqual(await complete("template", "rm", ""), ["warm"]);
  assert.deepEqual(await complete("restore", "--dry-run", "b"), ["before"]);
  assert.deepEqual(await complete("checkpoint", "rm", "before", ""), ["after", "before"]);
  assert.deepEqual(await complete("checkpoint", "create", "d"), ["db"]);
});

test("nothing in the command of a container, where files may be meant, and for what does not exist", async () => {
  assert.deepEqual(await complete("run", "busybox", "l"), []);
  assert.deepEqual(await complete("exec", "web", "sh", "-"), []);
  assert.deepEqual(await complete("image", "import", ""), []);
  assert.deepEqual(await complete("nonesuch", "x", "y"), []);
});
