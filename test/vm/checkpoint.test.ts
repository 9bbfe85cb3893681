/** Checkpoints of real VMs: what runs is frozen, goes on, and comes back as others, each with memory, disks and an identity of its own. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { SandboxHandle } from "../../src/sdk/index.ts";
import { openEmbedded } from "../support/embedded.ts";
import { tempDir, test } from "../support/harness.ts";

const MIB = 1024 * 1024;
/** Counts in memory, and writes each number to its disk and to its output. */
const COUNTER = "i=0; while :; do i=$((i+1)); echo $i >> /numbers; echo $i; sleep 0.2; done";

async function numbers(sandbox: SandboxHandle): Promise<number[]> {
  const { stdout } = await sandbox.exec(["cat", "/numbers"]);
  return stdout.trim().split("\n").map(Number);
}

/** Every number once, in order: neither memory nor disk has lost or repeated anything, and they are of the same instant. */
function assertUnbroken(found: readonly number[], what: string): void {
  assert.deepEqual(
    found,
    found.map((_, index) => index + 1),
    what,
  );
}

async function passes(sandbox: SandboxHandle, beyond: number): Promise<number[]> {
  const untilMs = performance.now() + 30_000;
  for (;;) {
    const found = await numbers(sandbox);
    if ((found.at(-1) ?? 0) > beyond || performance.now() > untilMs) return found;
    await sleep(200);
  }
}

test("a running sandbox is checkpointed, goes on, and is restored twice after it is gone", async (t) => {
  const runtime = await openEmbedded(t);
  const source = await runtime.sandboxes.create({ image: "busybox", container: { command: ["sh", "-c", COUNTER] } });
  const digest = await source.exec(["sh", "-c", "head -c 3000000 /dev/urandom > /data && sync && md5sum < /data"]);
  await passes(source, 3);
  const taken = await source.checkpoint({ name: "counting" });
  assert.ok(taken.pagesBytes > 0 && taken.devicesBytes > 0 && taken.template !== undefined, JSON.stringify(taken));
  const at = (await numbers(source)).length;
  assertUnbroken(await passes(source, at), "the source");
  await source.delete({ force: true });

  const seen = new Set<string>();
  for (const name of ["one", "two"]) {
    const copy = await runtime.checkpoints.restore("counting", { name });
    const found = await passes(copy, 1);
    assertUnbroken(found, name);
    assert.ok((await passes(copy, found.length)).length > found.length, `${name} counts on`);
    assert.equal((await copy.exec(["sh", "-c", "md5sum < /data"])).stdout, digest.stdout);
    const { stdout } = await copy.exec(["sh", "-c", "cat /proc/sys/kernel/random/uuid; date +%s"]);
    const [random, seconds] = stdout.trim().split("\n");
    seen.add(random ?? "");
    assert.ok(Math.abs(Number(seconds) - Date.now() / 1000) < 10, `${name}: ${seconds}`);
    // Its log goes on where that of the source was.
    let text = "";
    for await (const { data } of copy.main.logs()) text += Buffer.from(data).toString();
    assert.match(text, /^1\n2\n3\n/);
    assertUnbroken(text.trim().split("\n").map(Number), `the log of ${name}`);
  }
  assert.equal(seen.size, 2);
  await runtime.checkpoints.verify("counting");
  await runtime.checkpoints.remove("counting");
});

test("forks go on from one instant and diverge alone; a fork is checkpointed and restored as well", async (t) => {
  const runtime = await openEmbedded(t);
  const source = await runtime.sandboxes.create({ image: "busybox", container: { command: ["sh", "-c", COUNTER] } });
  await source.exec(["sh", "-c", "echo shared > /shared; mkdir -p /dev/shm; echo memory > /dev/shm/shared"]);
  const forks = await source.fork({ count: 3, name: "f{n}" });
  for (const [index, fork] of forks.entries()) {
    await fork.exec(["sh", "-c", `echo ${index} > /own; echo ${index} > /dev/shm/own`]);
  }
  for (const [index, fork] of forks.entries()) {
    const { stdout } = await fork.exec(["sh", "-c", "cat /shared /dev/shm/shared /own /dev/shm/own"]);
    assert.equal(stdout, `shared\nmemory\n${index}\n${index}\n`);
    assertUnbroken(await numbers(fork), `fork ${index}`);
  }
  assert.equal((await source.exec(["sh", "-c", "ls /own /dev/shm/own 2>/dev/null | wc -l"])).stdout, "0\n");
  const [first] = forks;
  const taken = await first?.checkpoint();
  const again = await runtime.checkpoints.restore(taken?.id ?? "");
  assert.equal((await again.exec(["cat", "/own"])).stdout, "0\n");
  assert.equal((await again.info()).generation, 2);
  // Stopped, its disk is as it left it; started, it boots with that.
  await again.stop({ timeoutMs: 0 });
  await again.start();
  assert.equal((await again.exec(["cat", "/own"])).stdout, "0\n");
});

test("memory that a VM has grown by is saved while it has it, and when it was given back the rest is", async (t) => {
  const runtime = await openEmbedded(t);
  const source = await runtime.sandboxes.create({
    image: "busybox",
    sharedMemoryBytes: 400 * MIB,
    container: { keepAlive: true },
  });
  await source.update({ memoryMib: 640, sharedMemoryBytes: 400 * MIB });
  // More than it began with.
  const fill = await source.exec([
    "sh",
    "-c",
    "head -c 300000000 /dev/urandom > /dev/shm/data && md5sum < /dev/shm/data",
  ]);
  const { pagesBytes } = await source.checkpoint({ name: "grown" });
  assert.ok(pagesBytes > 300_000_000, `${pagesBytes} bytes`);
  assert.equal((await source.exec(["sh", "-c", "rm /dev/shm/data; echo small > /dev/shm/data"])).exitCode, 0);
  await source.update({ memoryMib: 256 });
  await source.checkpoint({ name: "shrunk" });
  await source.delete({ force: true });

  const grown = await runtime.checkpoints.restore("grown");
  assert.equal((await grown.exec(["sh", "-c", "md5sum < /dev/shm/data"])).stdout, fill.stdout);
  await grown.delete({ force: true });
  const shrunk = await runtime.checkpoints.restore("shrunk");
  assert.equal((await shrunk.exec(["cat", "/dev/shm/data"])).stdout, "small\n");
  await shrunk.update({ memoryMib: 384 });
  assert.equal((await shrunk.info()).memoryMib, 384);
  await shrunk.delete({ force: true });
});

test("what cannot be saved is refused by name, before anything is stopped", async (t) => {
  const runtime = await openEmbedded(t);
  const dir = await tempDir(t);
  const mounts = [{ type: "bind", source: dir, target: "/live", how: "live" }] as const;
  const live = await runtime.sandboxes.create({ image: "busybox", container: { command: ["sleep", "1000"], mounts } });
  await assert.rejects(live.checkpoint(), {
    reason: "NOT_CHECKPOINTABLE",
    message: /\/live .* live mount \(virtiofs\)/,
  });
  await runtime.volumes.create({ name: "vol" });
  const volume = [{ type: "volume", source: "vol", target: "/data" }] as const;
  const writer = await runtime.sandboxes.create({
    image: "busybox",
    container: { command: ["sleep", "1000"], mounts: volume },
  });
  await assert.rejects(writer.fork(2), { reason: "NOT_CHECKPOINTABLE", message: /volume vol/ });
  for (const sandbox of [live, writer]) assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n");
});

test("containers that are given one by one come back under ids of their own", async (t) => {
  const runtime = await openEmbedded(t);
  const source = await runtime.sandboxes.create({ image: "busybox", container: { command: ["sh", "-c", COUNTER] } });
  const command = ["sh", "-c", "while read line; do echo got $line; done"];
  const web = await source.containers.create({ image: "busybox", name: "web", command, stdin: true });
  await web.start();
  await passes(source, 3);
  // Packed: what comes back is the same.
  const { compression } = await source.checkpoint({ name: "pod", stop: true, compress: true });
  assert.equal(compression, "zstd");
  const session = await runtime.checkpoints.begin("pod", { name: "again" });
  await session.add({ name: "web", id: "web-2" });
  const cwd = { process: { cwd: "/elsewhere" } };
  assert.equal((await runtime.checkpoints.check("pod", { containers: [{ name: "web", spec: cwd }] })).fits, false);
  await session.add({ name: source.main.name, id: "main-2", spec: { process: { cwd: "/" } } });
  const copy = await session.wait();
  const before = await numbers(copy);
  assertUnbroken(await passes(copy, before.length), "the copy");
  // Streams by the container's name: what goes in is answered, and what the source had written is not read again.
  const again = await (await copy.containers.get("web")).attach({ sinceRestore: true });
  assert.equal(again.containerId, "web-2");
  const writer = again.stdin.getWriter();
  await writer.write(Buffer.from("this\n"));
  for await (const line of again.lines()) {
    assert.equal(line.text, "got this");
    break;
  }
  const main = await copy.containers.get("main-2");
  const counting = await main.attach({ sinceRestore: true });
  for await (const { text } of counting.lines()) {
    assert.ok(Number(text) > 3, text);
    break;
  }
  await main.pause();
  await main.resume();
  assert.equal((await main.exec(["cat", "/proc/1/comm"])).stdout, "sh\n");
  assert.ok((await main.stats()).pids.current > 0n);
});
