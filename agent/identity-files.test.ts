import assert from "node:assert/strict";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { machineIdOf } from "../src/base/index.ts";
import { IdentityFiles } from "./identity-files.ts";
import { randomUuid } from "./random.ts";

interface Files extends AsyncDisposable {
  readonly dir: string;
  readonly identity: IdentityFiles;
  read(name: string): Promise<string>;
}

async function makeFiles(): Promise<Files> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-identity-"));
  let uuids = 0;
  return {
    dir,
    identity: new IdentityFiles({ dir, newUuid: () => `0000-${++uuids}`, nowMs: () => 1_700_000_000_123 }),
    read: async (name) => await readFile(join(dir, name), "utf8"),
    [Symbol.asyncDispose]: async () => await rm(dir, { recursive: true }),
  };
}

const NEWS = { event: "resumed", sandboxId: "a1", generation: 0, machineId: "", bootId: "" };
const UUID = "11111111-2222-4333-8444-555555555555";

test("containers mount files that say who the sandbox is", async () => {
  await using files = await makeFiles();
  files.identity.introduce("a1");
  const mounts = files.identity.mounts();
  assert.deepEqual(
    mounts.map(({ destination }) => destination),
    ["/run/belljar", "/etc/machine-id", "/proc/sys/kernel/random/boot_id"],
  );
  assert.ok(mounts.every(({ options }) => options.includes("ro")));
  assert.equal(await files.read("machine-id"), `${machineIdOf("a1")}\n`);
  assert.equal(await files.read("boot_id"), "0000-1\n");
  const time = "time=2023-11-14T22:13:20.123Z";
  assert.equal(await files.read("run/identity"), `event=created\ngeneration=0\nsandbox=a1\n${time}\n`);
  assert.equal(await files.read("run/busybox"), "");
});

test("another sandbox is another machine; the same one is not, however often it is told", async () => {
  await using files = await makeFiles();
  files.identity.mounts();
  const first = await files.read("machine-id");
  assert.match(first, /^00001\n$/);
  files.identity.introduce("a1");
  const [machineId, bootId] = [await files.read("machine-id"), await files.read("boot_id")];
  assert.notEqual(machineId, first);
  files.identity.introduce("");
  files.identity.introduce("a1");
  assert.deepEqual([await files.read("machine-id"), await files.read("boot_id")], [machineId, bootId]);
  files.identity.announce({ ...NEWS, event: "forked", sandboxId: "b2", generation: 1 });
  assert.equal(await files.read("machine-id"), `${machineIdOf("b2")}\n`);
  assert.notEqual(await files.read("boot_id"), bootId);
  assert.match(await files.read("run/identity"), /^event=forked\ngeneration=1\nsandbox=b2\n/);
  // Nothing has happened to this one yet, whatever was before in the guest that it is a copy of.
  files.identity.introduce("c3");
  assert.match(await files.read("run/identity"), /^event=created\ngeneration=0\nsandbox=c3\n/);
});

test("files stay the same files, whatever is written into them", async () => {
  await using files = await makeFiles();
  files.identity.introduce("a-name-that-is-rather-long");
  files.identity.mounts();
  await using watched = await open(join(files.dir, "run/identity"));
  await using mounted = await open(join(files.dir, "machine-id"));
  files.identity.announce({ ...NEWS, sandboxId: "b", event: "restored", machineId: "f".repeat(32), bootId: UUID });
  assert.match(await watched.readFile("utf8"), /^event=restored\ngeneration=0\nsandbox=b\ntime=.*\n$/);
  assert.equal(await mounted.readFile("utf8"), `${"f".repeat(32)}\n`);
  assert.equal(await files.read("boot_id"), `${UUID}\n`);
  files.identity.announce({ ...NEWS, sandboxId: "b" });
  assert.equal(await files.read("machine-id"), `${"f".repeat(32)}\n`);
});

test("news that make no sense change nothing", async () => {
  await using files = await makeFiles();
  files.identity.introduce("a1");
  files.identity.mounts();
  const before = await files.read("run/identity");
  for (const bad of [
    { event: "melted" },
    { machineId: "F".repeat(32) },
    { machineId: "f".repeat(31) },
    { bootId: "1" },
    { sandboxId: "../x" },
  ]) {
    assert.throws(() => files.identity.announce({ ...NEWS, event: "forked", ...bad }), { reason: "INVALID_ARGUMENT" });
  }
  assert.throws(() => files.identity.introduce("a\nb"), { reason: "INVALID_ARGUMENT" });
  assert.equal(await files.read("run/identity"), before);
  assert.equal(await files.read("machine-id"), `${machineIdOf("a1")}\n`);
});

test("what happened before the first container is what it is told", async () => {
  await using files = await makeFiles();
  files.identity.announce({ ...NEWS, event: "forked", sandboxId: "c3", generation: 4 });
  files.identity.mounts();
  assert.match(await files.read("run/identity"), /^event=forked\ngeneration=4\nsandbox=c3\n/);
});

test("machine ids and boot ids have the form of random UUIDs", () => {
  assert.match(machineIdOf("a1"), /^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$/);
  assert.notEqual(machineIdOf("a1"), machineIdOf("a2"));
  assert.match(randomUuid(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(randomUuid(), randomUuid());
});
