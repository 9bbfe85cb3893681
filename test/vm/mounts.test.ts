/** Mounts and volumes of real containers: what they see, what is kept, what is refused, and that nothing is left on the host. */
import assert from "node:assert/strict";
import { mkdir, open, readFile, realpath, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool, silentLog } from "../../src/base/index.ts";
import type { MountConfig } from "../../src/container/index.ts";
import { findBackEnds } from "../../src/devices/index.ts";
import type { RuntimeCore } from "../../src/runtime/index.ts";
import { openHost, resolvePaths, type SandboxHandle } from "../../src/sdk/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";

interface World {
  readonly runtime: RuntimeCore;
  readonly dir: string;
  readonly runDir: string;
}

async function world(t: TestScope): Promise<World> {
  const root = await tempDir(t);
  const runDir = await tempDir(t);
  const paths = { ...resolvePaths({ root }, process.env, process.getuid?.() ?? 0), run: runDir };
  const runtime = await (await openHost({ paths, log: silentLog })).openRuntime();
  t.after(async () => {
    for (const { id } of await runtime.sandboxes.list())
      await (await runtime.sandboxes.get(id)).delete({ force: true });
    await runtime.release();
  });
  return { runtime, dir: await realpath(await tempDir(t)), runDir };
}

const start = (runtime: RuntimeCore, ...mounts: MountConfig[]): Promise<SandboxHandle> =>
  runtime.sandboxes.create({ image: "busybox", container: { keepAlive: true, mounts } });

async function sh(sandbox: SandboxHandle, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await sandbox.exec(["sh", "-c", script]);
  assert.equal(exitCode, 0, `${script}: ${stderr}`);
  return stdout;
}

async function untilSays(sandbox: SandboxHandle, script: string, wanted: string): Promise<void> {
  const endMs = performance.now() + 20_000;
  let last = "";
  while (last !== wanted) {
    assert.ok(performance.now() < endMs, `${script} says ${JSON.stringify(last)}`);
    last = (await sandbox.exec(["sh", "-c", script])).stdout;
  }
}

test("volumes keep what was written, in the guest's own file system; copies follow the host; disks are mounted by what is on them", async (t) => {
  const { runtime, dir } = await world(t);
  const tree = join(dir, "tree");
  await mkdir(join(tree, "..v1"), { recursive: true });
  await writeFile(join(tree, "..v1", "key"), "one");
  await symlink("..v1", join(tree, "..data"));
  await symlink("..data/key", join(tree, "key"));
  await writeFile(join(tree, "..v1", "other"), "", { mode: 0o640 });
  const image = join(dir, "disk.img");
  const file = await open(image, "w");
  await file.truncate(16 * 2 ** 20);
  await file.close();
  await runTool("mke2fs", ["-q", "-F", "-t", "ext4", "-d", join(tree, "..v1"), image]);
  const sandbox = await start(
    runtime,
    { type: "volume", source: "data", target: "/data", sizeBytes: 64 * 2 ** 20 },
    { type: "bind", source: tree, target: "/config", readOnly: true },
    { type: "bind", source: join(tree, "..v1", "key"), target: "/etc/single.conf", readOnly: true },
    { type: "disk", source: image, target: "/disk", readOnly: true },
    { type: "bind", source: tree, target: "/own", how: "disk" },
    { type: "tmpfs", target: "/data/tmp", sizeBytes: 2 ** 20, mode: 0o700 },
    { type: "bind", source: "/sys/kernel", target: "/host/kernel", readOnly: true },
    { type: "bind", source: "/dev/shm", target: "/dev/shm" },
  );
  assert.equal(await sh(sandbox, "cat /config/key /etc/single.conf /disk/key /own/..v1/key"), "oneoneoneone");
  assert.equal(await sh(sandbox, "stat -c %a /config/..v1/other /data/tmp; ls -A /data"), "640\n700\ntmp\n");
  assert.match(await sh(sandbox, "df -k /data | tail -1"), /^\/dev\/sd/);
  for (const script of ["touch /config/x", "touch /disk/x", "echo x > /etc/single.conf"]) {
    assert.notEqual((await sandbox.exec(["sh", "-c", script])).exitCode, 0, script);
  }
  await sh(sandbox, "echo kept > /data/file; echo mine > /own/new; sync; test -e /host/kernel/mm");

  // As Kubernetes replaces a whole directory at one instant, with a process in the container that watches.
  const stop = new AbortController();
  const seen: string[] = [];
  const watching = (async () => {
    for await (const { name } of await sandbox.files.watch("/config", { signal: stop.signal })) seen.push(name);
  })().catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  await mkdir(join(tree, "..v2"));
  await writeFile(join(tree, "..v2", "key"), "two");
  await symlink("..v2", join(tree, "..new"));
  await rename(join(tree, "..new"), join(tree, "..data"));
  await writeFile(join(tree, "..v1", "key"), "a longer one");
  await untilSays(sandbox, "cat /config/key /etc/single.conf", "twoa longer one");
  stop.abort();
  await watching;
  assert.ok(seen.includes("..data"), seen.join(" "));

  // The guest's own view of a second container of the sandbox, and nobody else's.
  const second = await sandbox.containers.create({
    image: "busybox",
    keepAlive: true,
    mounts: [{ type: "volume", source: "data", target: "/d" }],
  });
  await second.start();
  assert.equal((await second.exec(["cat", "/d/file"])).stdout, "kept\n");
  const other = start(runtime, { type: "volume", source: "data", target: "/d", readOnly: true });
  await assert.rejects(other, { reason: "VOLUME_IN_USE" });
  await second.delete({ force: true });
  assert.equal(await sh(sandbox, "cat /data/file"), "kept\n");

  const { vmm } = await sandbox.info();
  process.kill(vmm?.pid ?? 0, "SIGKILL");
  while ((await sandbox.info()).state !== "stopped") await new Promise((resolve) => setTimeout(resolve, 20));
  await sandbox.start();
  assert.equal(await sh(sandbox, "cat /data/file /own/new /config/key"), "kept\nmine\ntwo");
  await sandbox.delete({ force: true });
  assert.deepEqual((await runtime.volumes.prune({ all: true })).removed.toSorted(), ["data"]);
});

test("a live mount is the host's directory on both sides, read-only where it is to be, and leaves no program behind", async (t) => {
  const { runtime, dir, runDir } = await world(t);
  const live = join(dir, "live");
  await mkdir(live);
  await writeFile(join(live, "file"), "host\n");
  await writeFile(join(dir, "conf"), "conf\n");
  await writeFile(join(dir, "secret"), "secret\n");
  const sandbox = await start(
    runtime,
    { type: "bind", source: live, target: "/live" },
    { type: "bind", source: live, target: "/fixed", readOnly: true, how: "live" },
    { type: "bind", source: join(dir, "conf"), target: "/etc/app.conf" },
  );
  await sh(sandbox, "echo guest > /live/new; echo more >> /etc/app.conf");
  assert.equal(await readFile(join(live, "new"), "utf8"), "guest\n");
  assert.equal(await readFile(join(dir, "conf"), "utf8"), "conf\nmore\n");
  assert.notEqual((await sandbox.exec(["touch", "/fixed/x"])).exitCode, 0);
  await writeFile(join(live, "file"), "changed\n");
  await untilSays(sandbox, "cat /live/file /fixed/file", "changed\nchanged\n");
  assert.deepEqual(
    (await sandbox.info()).containers[0]?.mounts.map(({ how, readOnly }) => [how, readOnly]),
    [
      ["live", false],
      ["live", true],
      ["live", false],
    ],
  );
  await sandbox.stop({ timeoutMs: 0 });
  assert.deepEqual(await findBackEnds(runDir), []);
  await rm(join(dir, "conf"));
  await assert.rejects(sandbox.start(), /conf/);
  await sandbox.delete({ force: true });
});

test("links lead nowhere but into the container; a target may be a file, or missing", async (t) => {
  const { runtime, dir } = await world(t);
  await writeFile(join(dir, "one"), "one");
  const volume: MountConfig = { type: "volume", source: "trap", target: "/vol", sizeBytes: 64 * 2 ** 20 };
  const script = "ln -s ../../../../../etc /vol/out; ln -s /nowhere/at/all /vol/dangling";
  // It ends by itself, and nobody syncs.
  const first = await runtime.sandboxes.create({
    image: "busybox",
    stopWithMain: true,
    container: { command: ["sh", "-c", script], mounts: [volume] },
  });
  await first.main.wait();
  await first.delete({ force: true });
  const bind = (target: string): MountConfig => ({ type: "bind", source: join(dir, "one"), target, readOnly: true });
  const sandbox = await start(
    runtime,
    volume,
    ...["/vol/out/app.conf", "/a/b/c", "/etc/hostname", "/var/run/../x"].map(bind),
  );
  assert.equal(
    await sh(sandbox, "cat /etc/app.conf /a/b/c /etc/hostname /var/x; ls /vol"),
    "oneoneoneonedangling\nout\n",
  );
  const refused = sandbox.containers.create({
    image: "busybox",
    keepAlive: true,
    mounts: [volume, bind("/vol/dangling/x")],
  });
  await assert.rejects(async () => (await refused).start(), { reason: "CONTAINER_START_FAILED" });
  await sandbox.delete({ force: true });
});

test("a block device of the host is mounted by what is on it, unless the host has mounted it", async (t) => {
  const { runtime, dir } = await world(t);
  const image = join(dir, "disk.img");
  await writeFile(image, "");
  await truncate(image, 16 * 2 ** 20);
  await runTool("mke2fs", ["-q", "-F", "-t", "ext4", image]);
  const node = (await runTool("losetup", ["--find", "--show", image])).stdout.toString().trim();
  t.after(() => runTool("losetup", ["--detach", node]));
  const mount: MountConfig = { type: "bind", source: node, target: "/disk" };
  const onHost = join(dir, "mounted");
  await mkdir(onHost);
  await runTool("mount", [node, onHost]);
  try {
    for (const source of [node, image]) {
      const attempt = start(runtime, { ...mount, type: "disk", source });
      await assert.rejects(attempt, { reason: "VOLUME_IN_USE", message: new RegExp(onHost) });
    }
  } finally {
    await runTool("umount", [onHost]);
  }
  const sandbox = await start(runtime, mount);
  await sh(sandbox, "echo written > /disk/file");
  await sandbox.stop({ timeoutMs: 0 });
  await sandbox.start();
  assert.equal(await sh(sandbox, "cat /disk/file"), "written\n");
  await sandbox.delete({ force: true });
});
