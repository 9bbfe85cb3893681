/** VMs that grow and shrink while their containers run. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { connectAgent } from "../../src/agent-client/index.ts";
import { silentLog, systemClock } from "../../src/base/index.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { createQemu } from "../../src/hypervisor/index.ts";
import { openImageStore } from "../../src/images/index.ts";
import { openRuntime, type RuntimeDeps, type SandboxHandle } from "../../src/runtime/index.ts";
import { resolvePaths } from "../../src/sdk/index.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";

const MIB = 1024 * 1024;
/** Above what memory of a VM grows by, in the guest, within what the kernel keeps for itself. */
const SLACK_MIB = 4;

async function dependencies(t: TestScope): Promise<RuntimeDeps> {
  const dir = await tempDir(t);
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  return {
    hypervisor: createQemu({ log: silentLog }),
    acceleration: { resolve: async () => ({ acceleration: "tcg", explanation: "fixed", remembered: false }) },
    guestImages: openGuestImages({ dir: guest, log: silentLog }),
    images: await openImageStore({ dir: join(dir, "images"), guestDir: guest, log: silentLog }),
    connectAgent,
    rootDir: join(dir, "root"),
    runDir: join(dir, "run"),
    clock: systemClock,
    log: silentLog,
  };
}

async function guestSize(sandbox: SandboxHandle): Promise<{ totalMib: number; cpus: number }> {
  const { stdout } = await sandbox.exec(["sh", "-c", "awk '/MemTotal/ {print $2}' /proc/meminfo; nproc"]);
  const [kib = 0, cpus = 0] = stdout.trim().split("\n").map(Number);
  return { totalMib: kib / 1024, cpus };
}

async function shell(sandbox: SandboxHandle, script: string): Promise<string> {
  const { exitCode, stdout, stderr } = await sandbox.exec(["sh", "-c", script]);
  assert.equal(exitCode, 0, `${script}: ${stderr}`);
  return stdout.trim();
}

test(
  "a VM grows and shrinks with its containers' limits and when it is told to; nothing in it is lost",
  async (t) => {
    const deps = await dependencies(t);
    let runtime = await openRuntime(deps);
    t.after(() => runtime.release());
    const report = (what: string, sinceMs: number): void =>
      t.diagnostic(`${what}: ${Math.round(performance.now() - sinceMs)} ms`);
    let sandbox = await runtime.sandboxes.create({
      image: "busybox",
      cpusMax: 4,
      sharedMemoryBytes: 16 * MIB,
      container: { keepAlive: true },
    });
    t.after(async () => await (await runtime.sandboxes.get(sandbox.id)).delete({ force: true }));
    const first = await guestSize(sandbox);
    assert.equal(first.cpus, 1);

    let beginMs = performance.now();
    await sandbox.update({ memoryMib: 640, cpus: 3, sharedMemoryBytes: 400 * MIB });
    report("first growth, by 384 MiB and 2 CPUs", beginMs);
    const grown = await guestSize(sandbox);
    assert.equal(grown.cpus, 3);
    assert.ok(
      Math.abs(grown.totalMib - first.totalMib - 384) < SLACK_MIB,
      `${first.totalMib} to ${grown.totalMib} MiB`,
    );
    const { memoryMib, vmm, resources } = await sandbox.info();
    assert.equal(memoryMib, 640);
    for (const dir of resources?.cgroups ?? []) {
      assert.equal((await readFile(join(dir, "cgroup.procs"), "utf8")).trim(), String(vmm?.pid), dir);
    }

    // More than the VM had at first, in memory that can be used and is bounded by what there is.
    await shell(sandbox, "dd if=/dev/urandom of=/dev/shm/data bs=1M count=300 2>/dev/null");
    const sum = await shell(sandbox, "md5sum /dev/shm/data");
    beginMs = performance.now();
    const refused = sandbox.update({ memoryMib: 256 });
    await assert.rejects(refused, { reason: "RESIZE_REFUSED", message: /from 640 MiB .* to 256 MiB/ });
    report("less than is in use, refused", beginMs);
    assert.equal((await sandbox.info()).memoryMib, 640, "as it was");
    assert.equal(await shell(sandbox, "md5sum /dev/shm/data"), sum);

    // A container with limits of its own, of more than one owner's life.
    await sandbox.main.update({ cpuset: "2" });
    assert.equal(await shell(sandbox, "nproc"), "1");
    await sandbox.main.update({ cpuset: "", memoryBytes: 500 * MIB });
    assert.equal(await shell(sandbox, "nproc"), "3");
    await runtime.release();
    runtime = await openRuntime(deps);
    sandbox = await runtime.sandboxes.get(sandbox.id);
    assert.equal((await sandbox.info()).memoryMib, 640);
    beginMs = performance.now();
    const limits = { memoryBytes: 700 * MIB };
    const second = await sandbox.containers.create({ image: "busybox", keepAlive: true, limits });
    report("a container that needs 200 MiB more", beginMs);
    assert.equal((await sandbox.info()).memoryMib, 840);
    await second.start();
    beginMs = performance.now();
    await second.delete({ force: true });
    report("stopped and deleted, its memory given back", beginMs);
    assert.equal((await sandbox.info()).memoryMib, 640);
    assert.equal(await shell(sandbox, "md5sum /dev/shm/data; rm /dev/shm/data"), sum);

    await assert.rejects(sandbox.update({ memoryMib: 256 }), { reason: "INVALID_ARGUMENT", message: /need 636 MiB/ });
    await sandbox.main.update({ memoryBytes: 0 });
    beginMs = performance.now();
    await sandbox.update({ memoryMib: 256, cpus: 1 });
    report("shrunk by 384 MiB and 2 CPUs", beginMs);
    const last = await guestSize(sandbox);
    assert.equal(last.cpus, 1);
    assert.ok(Math.abs(last.totalMib - first.totalMib) < SLACK_MIB, `${last.totalMib} MiB`);
  },
  { timeoutMs: 240_000 },
);
