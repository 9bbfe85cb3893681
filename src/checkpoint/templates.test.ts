import assert from "node:assert/strict";
import { chmod, mkdir, readdir, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { BelljarError } from "../base/index.ts";
import { ROOT_SERIAL } from "../sandbox/index.ts";
import { acquireLock, systemDisk } from "../store/index.ts";
import { Templates } from "./index.ts";

interface World {
  readonly runtime: MemoryRuntime;
  readonly templates: Templates;
  readonly dir: string;
}

async function open(t: TestScope): Promise<World> {
  const runtime = await MemoryRuntime.open(t);
  const { hypervisor, connectAgent, runDir, clock, log } = runtime.deps;
  const dir = join(t.dir, "templates");
  const templates = new Templates({
    hypervisor,
    connectAgent,
    runDir,
    clock: { ...clock, sleep: async () => {} },
    log,
    dir,
    disk: systemDisk,
    lock: acquireLock,
  });
  Object.assign(runtime.deps, { templates });
  await runtime.reopen();
  return { runtime, templates, dir };
}

const starts = ({ runtime }: World): number =>
  runtime.hypervisor.calls.filter((call) => call.startsWith("start")).length;

const whole = async (dir: string): Promise<string[]> =>
  (await readdir(dir)).filter((name) => /^[0-9a-f]{64}$/.test(name));

test("the first sandbox makes a template, the others start from it; each configuration has its own", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  const first = await sandboxes.create({ image: "busybox" });
  // One VM was frozen, one tried out, one is the sandbox's.
  assert.equal(starts(world), 3);
  const [digest] = await whole(world.dir);
  assert.equal((await first.info()).vmm?.template, digest);
  const both = await Promise.all([1, 2].map(() => sandboxes.create({ image: "busybox" })));
  assert.equal(starts(world), 5);
  for (const sandbox of both) assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
  await sandboxes.create({ image: "busybox", memoryMib: 512 });
  await sandboxes.create({ image: "busybox", templateDomain: "others" });
  const infos = await world.templates.list();
  assert.deepEqual(
    infos.map(({ memoryMib, key }) => [memoryMib, key.domain]),
    [
      [256, ""],
      [512, ""],
      [256, "others"],
    ],
  );
  const cold = await sandboxes.create({ image: "busybox", template: false });
  assert.equal((await cold.info()).vmm?.template, undefined);
  assert.equal((await stat(join(world.dir, digest ?? "", "memory"))).mode & 0o777, 0o400);
});

test("the guest rehearses a container before it is frozen, and has none any more then", async (t) => {
  const world = await open(t);
  const sandbox = await world.runtime.core.sandboxes.create({ image: "busybox" });
  const { calls } = world.runtime.guests;
  for (const method of ["createContainer", "startContainer", "execProcess", "freeze", "thaw", "removeContainer"]) {
    assert.ok(
      calls.some((call) => call.startsWith(method)),
      method,
    );
  }
  const { containers } = world.runtime.guests.guest(sandbox.id);
  assert.deepEqual(
    [...containers.keys()],
    (await sandbox.containers.list()).map(({ id }) => id),
  );
  world.runtime.guests.fault("execProcess", { kind: "fail", error: new BelljarError("AGENT_FAILED", "no program") });
  const booted = await world.runtime.core.sandboxes.create({ image: "busybox", memoryMib: 512 });
  assert.equal((await booted.info()).vmm?.template, undefined);
});

test("several at once wait for one template; another owner finds it", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  await Promise.all([1, 2, 3, 4].map(() => sandboxes.create({ image: "busybox" })));
  assert.equal(starts(world), 6);
  await world.runtime.reopen();
  const [info] = await world.templates.list();
  assert.ok(info !== undefined && info.memoryBytes === 256 * 1024 * 1024 && info.devicesBytes > 0);
});

test("what cannot be made, or does not start, is no reason not to boot; what a killed maker left is removed", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  const { hypervisor } = world.runtime;
  hypervisor.fail("saveDevices", new BelljarError("VMM_PROTOCOL", "QEMU saved no device state"));
  const booted = await sandboxes.create({ image: "busybox" });
  assert.equal((await booted.info()).vmm?.template, undefined);
  assert.deepEqual(await whole(world.dir), []);
  assert.deepEqual(
    (await readdir(world.dir)).filter((name) => name !== "lock"),
    [],
  );

  const forked = await sandboxes.create({ image: "busybox" });
  const digest = (await forked.info()).vmm?.template ?? "";
  hypervisor.fail("start", new BelljarError("VMM_START_FAILED", "QEMU did not accept the saved device state"));
  assert.equal((await (await sandboxes.create({ image: "busybox" })).info()).vmm?.template, undefined);

  await mkdir(join(world.dir, ".belljar-tmp-killed"));
  await world.runtime.reopen();
  assert.deepEqual(await readdir(world.dir), [digest, "lock"]);
});

test("a damaged template is told and not used; removed, it is made again", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  const digest = (await (await sandboxes.create({ image: "busybox" })).info()).vmm?.template ?? "";
  const memory = join(world.dir, digest, "memory");
  await chmod(memory, 0o600);
  await truncate(memory, 4096);
  const again = new Templates({
    ...world.runtime.deps,
    dir: world.dir,
    disk: systemDisk,
    lock: acquireLock,
  });
  const { guestImages } = world.runtime.deps;
  const image = await guestImages.current();
  const root = { serial: ROOT_SERIAL, path: image.rootPath, format: "raw", readOnly: true } as const;
  const size = { memoryMib: 256, cpus: 1 };
  const vm = { id: "any", runDir: "", acceleration: "tcg", ...size, boot: image, disks: [root] } as const;
  const wish = { vm, guestImage: image.digest, domain: "" };
  await assert.rejects(again.get(wish), { reason: "TEMPLATE_CORRUPT", message: /memory/ });
  await assert.rejects(again.remove("none"), { reason: "TEMPLATE_NOT_FOUND" });
  assert.equal(await again.remove(digest.slice(0, 8)), digest);
  assert.equal((await again.get(wish)).digest, digest);
});

test("a boot that cannot succeed is not tried twice", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  world.runtime.hypervisor.fail("start", new BelljarError("NOT_ENOUGH_MEMORY", "no memory"));
  await assert.rejects(sandboxes.create({ image: "busybox" }), { reason: "NOT_ENOUGH_MEMORY" });
  assert.equal(starts(world), 1);
  assert.deepEqual(await sandboxes.list(), []);
});
