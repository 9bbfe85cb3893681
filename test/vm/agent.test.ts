/** What only a real guest can show of the agent: control groups, namespaces, mounts, swap. One VM for all of it. */
import assert from "node:assert/strict";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ContainerPhase } from "../../src/protocol/index.ts";
import { TestGuest } from "../support/guest.ts";
import { test } from "../support/harness.ts";

const WAIT_MS = 20_000;
const MIB = 1024 * 1024;

test("the agent's containers in a real guest", async (t) => {
  const guest = await TestGuest.boot(t);
  for (const part of [names, freezing, limits, sharedPids, sharedMemory, keptAlive, restart, swap]) {
    const startedMs = performance.now();
    await part(guest);
    t.diagnostic(`${part.name}: ${Math.round(performance.now() - startedMs)} ms`);
  }
  assert.deepEqual((await guest.agent.call("listContainers", {})).containers, []);
});

async function phaseOf(guest: TestGuest, id: string): Promise<ContainerPhase | undefined> {
  const { containers } = await guest.agent.call("listContainers", {});
  return containers.find((one) => one.containerId === id)?.phase;
}

async function remove(guest: TestGuest, ...ids: readonly string[]): Promise<void> {
  for (const containerId of ids) await guest.agent.call("removeContainer", { containerId });
}

/** DNS and host name reach containers, new DNS lines those that run. */
async function names(guest: TestGuest): Promise<void> {
  await guest.agent.call("configureSandbox", { hostname: "jar", dnsLines: ["nameserver 192.0.2.1"] });
  await guest.run("names", { keepAlive: true, command: ["unused"] });
  const { stdout } = await guest.shell("names", "cat /etc/resolv.conf /etc/hostname; grep -c jar /etc/hosts");
  assert.equal(stdout, "nameserver 192.0.2.1\njar\n1\n");
  await guest.agent.call("configureSandbox", { dnsLines: ["nameserver 192.0.2.2", "options ndots:2"] });
  const changed = await guest.shell("names", "cat /etc/resolv.conf; echo 192.0.2.3 friend >>/etc/hosts; echo $?");
  assert.equal(changed.stdout, "nameserver 192.0.2.2\noptions ndots:2\n0\n");
  await remove(guest, "names");
}

/** A frozen counter stands still, and goes on where it was. */
async function freezing(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  const address = { containerId: "counter", processId: "", stream: 1, maxBytes: 65_536 };
  await guest.run("counter", { command: ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done"] });
  let text = "";
  let offset = 0n;
  const read = async (waitMs: number): Promise<number> => {
    const answer = await agent.call("readOutput", { ...address, offset, waitMs });
    text += Buffer.from(answer.data).toString();
    offset = answer.offset + BigInt(answer.data.length);
    return answer.data.length;
  };
  assert.ok((await read(WAIT_MS)) > 0);
  await agent.call("pauseContainer", { containerId: "counter" });
  await agent.call("pauseContainer", { containerId: "counter" });
  assert.equal(await phaseOf(guest, "counter"), ContainerPhase.PAUSED);
  // What was in its pipe when it was frozen; after that, nothing for fifty times its pause.
  while ((await read(500)) > 0);
  await assert.rejects(guest.spawn("counter", ["true"]), { reason: "INVALID_TRANSITION" });
  await agent.call("resumeContainer", { containerId: "counter" });
  await agent.call("resumeContainer", { containerId: "counter" });
  assert.equal(await phaseOf(guest, "counter"), ContainerPhase.RUNNING);
  while ((await read(WAIT_MS)) === 0);
  const numbers = text.split("\n").slice(0, -1).map(Number);
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => index + 1),
  );
  // Frozen processes too are killed, by removal and by signal.
  await agent.call("pauseContainer", { containerId: "counter" });
  await agent.call("signalProcess", { containerId: "counter", signal: 9, all: true });
  const end = await agent.call("waitProcess", { containerId: "counter", waitMs: WAIT_MS });
  assert.deepEqual([end.ended, end.signal], [true, 9]);
  assert.equal(await phaseOf(guest, "counter"), ContainerPhase.STOPPED);
  await remove(guest, "counter");
}

/** Limits before and after the start, all of them or none; what is used is told. */
async function limits(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  const containerId = "limits";
  await guest.create(containerId, { keepAlive: true, command: ["unused"] });
  await agent.call("updateContainer", { containerId, memoryBytes: BigInt(32 * MIB), cpuQuotaUs: 9_000n, cpuset: "0" });
  await agent.call("updateContainer", { containerId, cpuQuotaUs: 0n, cpuset: "", pids: 50, cpuWeight: 300 });
  await agent.call("startContainer", { containerId });
  const files = ["memory.max", "pids.max", "cpu.weight", "cpu.max", "cpuset.cpus"];
  const current = async (): Promise<string> =>
    (await guest.shell(containerId, `cd /sys/fs/cgroup; for f in ${files.join(" ")}; do echo $(cat $f); done`)).stdout;
  assert.equal(await current(), `${32 * MIB}\n50\n300\nmax 100000\n\n`);
  const change = { containerId, memoryBytes: BigInt(48 * MIB), cpuQuotaUs: 50_000n, cpuset: "0", pids: 0 };
  await agent.call("updateContainer", change);
  const after = `${48 * MIB}\nmax\n300\n50000 100000\n0\n`;
  assert.equal(await current(), after);
  // A guest of one CPU has no other: nothing of this is done.
  const bad = { containerId, memoryBytes: BigInt(40 * MIB), pids: 77, cpuset: "7", cpuWeight: 5 };
  await assert.rejects(agent.call("updateContainer", bad), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(agent.call("updateContainer", { containerId, memoryBytes: 4096n }), {
    reason: "INVALID_ARGUMENT",
  });
  assert.equal(await current(), after);

  await guest.shell(
    containerId,
    "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; head -c 4000000 /dev/zero >/f; sync",
  );
  const stats = await agent.call("getContainerStats", { containerId });
  assert.ok((stats.cpu?.usageUs ?? 0n) > 10_000n);
  assert.ok((stats.cpu?.throttledPeriods ?? 0n) > 0n && (stats.cpu?.throttledUs ?? 0n) > 0n);
  assert.equal(stats.memory?.limitBytes, BigInt(48 * MIB));
  assert.ok((stats.memory?.usageBytes ?? 0n) > 0n && (stats.memory?.usageBytes ?? 0n) <= BigInt(48 * MIB));
  assert.ok((stats.memory?.peakBytes ?? 0n) >= BigInt(4 * MIB) / 2n);
  assert.ok("anon" in (stats.memory?.detail ?? {}) && "file" in (stats.memory?.detail ?? {}));
  assert.ok((stats.pids?.current ?? 0n) >= 1n);
  assert.equal(stats.pids?.limit, undefined);
  const written = stats.blockIo.reduce((sum, one) => sum + one.writtenBytes, 0n);
  assert.ok(written >= 4_000_000n, `${written} bytes were written`);
  assert.ok(stats.network.some((one) => one.name === "lo"));
  await remove(guest, containerId);
}

/** Containers that share PIDs see one another; the end of one ends its own processes and nobody else's. */
async function sharedPids(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  await guest.run("pids1", { sharePids: true, command: ["sh", "-c", "sleep 1001 & sleep 1002"] });
  await guest.run("pids2", { sharePids: true, keepAlive: true, command: ["unused"] });
  await guest.run("alone", { command: ["sleep", "1003"] });
  const seen = async (): Promise<string> => (await guest.exec("pids2", ["ps", "-o", "pid,args"])).stdout;
  const before = await seen();
  assert.match(before, /sleep 1001/);
  assert.match(before, /sleep 1002/);
  assert.match(before, /^ +1 .*busybox sh -c/m);
  assert.doesNotMatch(before, /sleep 1003/);
  // The first of the namespace has no handler, and is not theirs: they can neither end it nor look into it.
  const touched = await guest.shell("pids2", "kill -9 1; kill -TERM 1; ls /proc/1/root/ | tr '\\n' ' '");
  assert.doesNotMatch(touched.stdout, /agent/);
  await agent.call("signalProcess", { containerId: "pids1", signal: 15 });
  const end = await agent.call("waitProcess", { containerId: "pids1", waitMs: WAIT_MS });
  assert.deepEqual([end.ended, end.exitCode, end.signal], [true, 143, 15]);
  await remove(guest, "pids1");
  assert.doesNotMatch(await seen(), /sleep 100/);
  await guest.run("pids1", { sharePids: true, command: ["sh", "-c", "exit 7"] });
  assert.equal((await agent.call("waitProcess", { containerId: "pids1", waitMs: WAIT_MS })).exitCode, 7);
  await remove(guest, "pids1", "pids2", "alone");
}

/** One /dev/shm for those that share it, of the size that was asked for. */
async function sharedMemory(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  const size = async (): Promise<string> =>
    (await guest.shell("shm1", "df -k /dev/shm | tail -n 1 | awk '{ print $2 }'")).stdout.trim();
  await agent.call("configureSandbox", { sharedMemoryBytes: BigInt(8 * MIB) });
  await guest.run("shm1", { shareMemory: true, keepAlive: true, command: ["unused"] });
  await guest.run("shm2", { shareMemory: true, keepAlive: true, command: ["unused"] });
  assert.equal(await size(), String(8 * 1024));
  await guest.shell("shm1", "echo hello >/dev/shm/file; head -c 3000000 /dev/zero >/dev/shm/large");
  assert.equal((await guest.shell("shm2", "cat /dev/shm/file")).stdout, "hello\n");
  await agent.call("configureSandbox", { sharedMemoryBytes: BigInt(16 * MIB) });
  assert.equal(await size(), String(16 * 1024));
  await assert.rejects(agent.call("configureSandbox", { sharedMemoryBytes: BigInt(MIB) }), {
    reason: "INVALID_ARGUMENT",
  });
  assert.equal(await size(), String(16 * 1024));
  await remove(guest, "shm1", "shm2");
}

/** An image without any program can be kept alive and used; orphans are reaped; SIGTERM ends it. */
async function keptAlive(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  const busybox = "/run/belljar/busybox";
  await guest.makeImage("bare", async (root) => {
    await writeFile(join(root, "data"), "bare\n");
    await mkdir(join(root, "etc"));
    // As distributions have it: it leads nowhere.
    await symlink("../run/resolver/stub.conf", join(root, "etc/resolv.conf"));
  });
  await guest.run("bare", { image: "bare", keepAlive: true, readOnly: true, command: ["unused"] });
  const read = await guest.exec("bare", [busybox, "cat", "/data", "/etc/hostname", "/etc/resolv.conf"]);
  assert.match(read.stdout, /^bare\njar\nnameserver /);
  // The child outlives its parent, and ends.
  const orphan = await guest.exec("bare", [busybox, "sh", "-c", `${busybox} sleep 0.2 >/dev/null & echo $!`]);
  const gone = `while [ -d /proc/${Number(orphan.stdout)} ]; do ${busybox} sleep 0.1; done`;
  assert.equal((await guest.exec("bare", [busybox, "timeout", "10", busybox, "sh", "-c", gone])).exitCode, 0);

  const processId = await guest.spawn("bare", [busybox, "sh", "-c", "exit 3"]);
  const address = { containerId: "bare", processId };
  await assert.rejects(agent.call("releaseProcess", { containerId: "bare" }), { reason: "INVALID_TRANSITION" });
  assert.equal((await agent.call("waitProcess", { ...address, waitMs: WAIT_MS })).exitCode, 3);
  await agent.call("releaseProcess", address);
  await agent.call("releaseProcess", address);
  await assert.rejects(agent.call("waitProcess", address), { reason: "PROCESS_NOT_FOUND" });

  await agent.call("signalProcess", { containerId: "bare", signal: 15 });
  assert.equal((await agent.call("waitProcess", { containerId: "bare", waitMs: 2_000 })).exitCode, 143);
  await agent.call("releaseProcess", { containerId: "bare" });
  assert.equal(await phaseOf(guest, "bare"), ContainerPhase.STOPPED);
  await remove(guest, "bare");
}

/** A container that has ended is removed, created and started again, and finds what it wrote. */
async function restart(guest: TestGuest): Promise<void> {
  const command = ["sh", "-c", "echo run >>/runs; exit $(wc -l </runs)"];
  for (const expected of [1, 2, 3]) {
    await guest.run("again", { command });
    const end = await guest.agent.call("waitProcess", { containerId: "again", waitMs: WAIT_MS });
    assert.equal(end.exitCode, expected);
    await remove(guest, "again");
  }
}

/** A disk for swap is in use while its container is there. */
async function swap(guest: TestGuest): Promise<void> {
  const serial = await guest.plugEmptyDisk("swap", 16);
  await guest.run("watcher", { keepAlive: true, command: ["unused"] });
  const state = async (): Promise<string> =>
    (await guest.shell("watcher", "tail -n +2 /proc/swaps | wc -l; cat /proc/sys/vm/swappiness")).stdout;
  assert.match(await state(), /^0\n/);
  await guest.create("swapper", { keepAlive: true, command: ["unused"], swap: serial, swappiness: 37 });
  assert.equal(await state(), "1\n37\n");
  await assert.rejects(guest.create("second", { command: ["true"], swap: serial }), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(guest.create("second", { command: ["true"], swappiness: 201 }), { reason: "INVALID_ARGUMENT" });
  await remove(guest, "swapper");
  assert.match(await state(), /^0\n/);
  await remove(guest, "watcher");
}
