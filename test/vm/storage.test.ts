/** Root file systems and what containers write, in a real VM: room that runs out and grows, roots that are handed in, many layers. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import { type ContainerHandle, Runtime, resolvePaths, type SandboxHandle } from "../../src/sdk/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";
import { makeLayers } from "../support/layers.ts";
import { mountTmpfs } from "../support/tmpfs.ts";

const MIB = 2 ** 20;
const LAYERS = 120;
/** What a container without a command of its own waits with, and all that an empty root has. */
const BUSYBOX = "/run/belljar/busybox";

async function open(t: TestScope, root: string): Promise<Runtime> {
  const paths = resolvePaths({ root, run: join(await tempDir(t), "run") }, process.env, process.getuid?.() ?? 0);
  const runtime = await Runtime.open({ paths });
  t.after(() => runtime[Symbol.asyncDispose]());
  return runtime;
}

async function sh(target: SandboxHandle | ContainerHandle, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await target.exec([BUSYBOX, "sh", "-c", script], { env: [`B=${BUSYBOX}`] });
  assert.equal(exitCode, 0, `${script}: ${stderr}`);
  return stdout;
}

const fill = (path: string, mib: number): string => `dd if=/dev/zero of=${path} bs=1M count=${mib} conv=fsync`;

test("a full disk stops the workload, not the sandbox, and grows; roots are taken as they come", async (t) => {
  const dir = await tempDir(t);
  const runtime = await open(t, join(dir, "root"));
  await using sandbox = await runtime.sandboxes.create({ image: "busybox", storageBytes: 64 * MIB });
  const { main, containers } = sandbox;

  const full = await sandbox.exec(["sh", "-c", fill("/big", 100)]);
  assert.match(full.stderr, /No space left on device/);
  assert.equal((await sandbox.exec(["echo", "well"])).stdout, "well\n");
  await main.growStorage(256 * MIB);
  await sh(sandbox, `rm /big; ${fill("/big", 100)}`);
  assert.deepEqual((await main.info()).storage, { kind: "disk", sizeBytes: 256 * MIB });

  const memory = await containers.create({
    image: "busybox",
    storage: "tmpfs",
    storageBytes: 16 * MIB,
    keepAlive: true,
  });
  await memory.start();
  assert.match((await memory.exec(["sh", "-c", fill("/big", 20)])).stderr, /No space left on device/);
  await memory.growStorage(32 * MIB);
  await sh(memory, fill("/big", 20));
  await memory.delete({ force: true });

  const tree = join(dir, "tree");
  await mkdir(join(tree, "etc"), { recursive: true });
  await writeFile(join(tree, "etc/from"), "lower");
  const ext4 = join(dir, "root.ext4");
  await writeFile(ext4, "");
  await runTool("truncate", ["--size=64M", ext4]);
  await runTool("mke2fs", ["-q", "-F", "-t", "ext4", "-d", tree, ext4]);
  const own = await containers.create({ rootfs: { source: ext4 }, keepAlive: true });
  await own.start();
  assert.equal(await sh(own, "$B cat /etc/from"), "lower");
  assert.match(await sh(own, "$B grep ' / ' /proc/mounts"), / \/ ext4 rw/);
  await sh(own, "echo kept >/etc/written");
  await assert.rejects(own.growStorage(128 * MIB), { reason: "INVALID_ARGUMENT" });
  await own.delete({ force: true });
  // It was unmounted, and what was written is on the disk that was handed in.
  const { stdout } = await runTool("debugfs", ["-R", "cat /etc/written", ext4]);
  assert.equal(stdout.toString(), "kept\n");

  const lower = join(dir, "lower.erofs");
  const upper = join(dir, "upper.erofs");
  await runTool("mkfs.erofs", ["--quiet", lower, tree]);
  await writeFile(join(tree, "etc/from"), "upper");
  await runTool("mkfs.erofs", ["--quiet", upper, tree]);
  const mounts = [upper, lower].map((path) => `${path}.d`);
  for (const path of [upper, lower]) {
    await mkdir(`${path}.d`);
    await runTool("mount", ["-t", "erofs", "-o", "loop,ro", path, `${path}.d`]);
    t.after(() => runTool("umount", [`${path}.d`]));
  }
  const options = [`lowerdir=${mounts.join(":")}`, `upperdir=${join(dir, "none")}`];
  const layered = await containers.create({ rootfs: { type: "overlay", source: "overlay", options }, keepAlive: true });
  await layered.start();
  assert.equal(await sh(layered, "$B cat /etc/from; echo changed >/etc/from; $B cat /etc/from"), "upperchanged\n");
  await layered.delete({ force: true });

  const archive = await makeLayers(join(dir, "layers"), LAYERS);
  await runtime.images.import(archive, { name: "many", kind: "docker-archive" });
  const start = performance.now();
  const many = await containers.create({ image: "many", keepAlive: true });
  await many.start();
  t.diagnostic(`a container of ${LAYERS} layers in ${Math.round(performance.now() - start)} ms`);
  assert.equal(await sh(many, `$B cat /0 /${LAYERS - 1} /same`), `0${LAYERS - 1}${LAYERS - 1}`);
  await assert.rejects(runtime.images.remove("many"), { reason: "IMAGE_IN_USE" });
  await many.delete({ force: true });
  await runtime.images.remove("many");
  assert.equal((await sandbox.exec(["echo", "well"])).stdout, "well\n");
});

test("a full disk of the host is the workload's error, and the sandbox lives", async (t) => {
  const root = await mountTmpfs(t, 48);
  const runtime = await open(t, root);
  await using sandbox = await runtime.sandboxes.create({ image: "busybox" });
  const full = await sandbox.exec(["sh", "-c", fill("/big", 100)]);
  assert.notEqual(full.exitCode, 0);
  t.diagnostic(full.stderr);
  const { vmm, state } = await sandbox.info();
  assert.equal(state, "running");
  assert.ok(vmm !== undefined);
  assert.ok((await sandbox.stats()).guest.processes > 0);
  await sandbox.delete({ force: true });
});
