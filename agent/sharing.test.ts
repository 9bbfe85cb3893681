/** What the containers of a sandbox have in common: names, shared memory, swap. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BelljarError } from "../src/base/errors.ts";
import { NameFiles } from "./name-files.ts";
import { SharedMemory } from "./shared-memory.ts";

async function scratch(): Promise<{ dir: string } & AsyncDisposable> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-sharing-"));
  return { dir, [Symbol.asyncDispose]: async () => await rm(dir, { recursive: true }) };
}

test("name files are there once there is something to say, and stay the same files", async () => {
  await using at = await scratch();
  const names = new NameFiles();
  assert.deepEqual(await names.write(at.dir), []);
  assert.equal(names.configure("jar", ["nameserver 192.0.2.1"]), true);
  assert.equal(names.configure("jar", []), false);
  const mounts = await names.write(at.dir);
  assert.deepEqual(
    mounts.map(({ destination }) => destination),
    ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"],
  );
  assert.match(await readFile(join(at.dir, "hosts"), "utf8"), /^127\.0\.0\.1\tlocalhost$(?:.|\n)*^127\.0\.1\.1\tjar$/m);
  assert.equal(names.configure("", ["nameserver 192.0.2.2", "search x"]), true);
  await names.write(at.dir);
  assert.equal(await readFile(join(at.dir, "resolv.conf"), "utf8"), "nameserver 192.0.2.2\nsearch x\n");
  for (const lines of [["a\nb"], ["x".repeat(1025)], Array.from({ length: 65 }, () => "x")]) {
    assert.throws(() => names.configure("", lines), { reason: "INVALID_ARGUMENT" });
  }
});

test("shared memory is mounted once, by whoever needs it first, and then only resized", async () => {
  await using at = await scratch();
  const said: string[] = [];
  let failing = false;
  const memory = new SharedMemory(join(at.dir, "shm"), async (_, args) => {
    said.push(args.filter((word) => word !== join(at.dir, "shm")).join(" "));
    if (failing) throw new BelljarError("AGENT_FAILED", "no");
  });
  const [first, second] = await Promise.all([memory.mount(), memory.mount()]);
  assert.deepEqual(first, second);
  await memory.resize(5000n);
  failing = true;
  await assert.rejects(memory.resize(4096n), { reason: "INVALID_ARGUMENT" });
  assert.deepEqual(said, [
    "mount -t tmpfs -o nosuid,noexec,nodev,mode=1777,size=67108864 shm",
    "mount -o remount,nosuid,noexec,nodev,mode=1777,size=8192",
    "mount -o remount,nosuid,noexec,nodev,mode=1777,size=4096",
  ]);
});
