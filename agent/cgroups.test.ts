/** Control groups in a directory that stands for the kernel's: the files are there, and nobody acts on them. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseBlockIo, parseNetwork } from "./cgroup-stats.ts";
import { Cgroups } from "./cgroups.ts";

interface Tree extends AsyncDisposable {
  readonly cgroups: Cgroups;
  /** Writes files of the container `c`, by their paths below its group. */
  write(files: Readonly<Record<string, string>>): Promise<void>;
  read(name: string): Promise<string>;
}

async function makeTree(): Promise<Tree> {
  const root = await mkdtemp(join(tmpdir(), "belljar-cgroups-"));
  const dir = join(root, "belljar/c");
  await mkdir(join(dir, "run"), { recursive: true });
  return {
    cgroups: new Cgroups(root, 50),
    write: async (files) => {
      for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
    },
    read: async (name) => await readFile(join(dir, name), "utf8"),
    [Symbol.asyncDispose]: async () => await rm(root, { recursive: true }),
  };
}

test("a container is frozen when the kernel says so, and thawed again when it never does", async () => {
  await using tree = await makeTree();
  await tree.write({ "cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 1\n" });
  await tree.cgroups.freeze("c");
  assert.equal(await tree.read("cgroup.freeze"), "1");
  await tree.cgroups.thaw("c");
  assert.equal(await tree.read("cgroup.freeze"), "0");
  await tree.write({ "cgroup.events": "populated 1\nfrozen 0\n" });
  await assert.rejects(tree.cgroups.freeze("c"), { reason: "DEADLINE_EXCEEDED" });
  assert.equal(await tree.read("cgroup.freeze"), "0");
});

const LIMITS = {
  "run/cpuset.cpus": "\n",
  "run/cpu.weight": "100\n",
  "run/cpu.max": "max 100000\n",
  "run/pids.max": "max\n",
  "run/memory.max": "max\n",
};

test("limits that are given are set, and the others stay", async () => {
  await using tree = await makeTree();
  await tree.write(LIMITS);
  // The kernel would replace a file's text as a whole; a plain file keeps what is longer.
  await tree.write({ "run/cpu.max": "", "run/pids.max": "", "run/memory.max": "" });
  await tree.cgroups.update("c", { memoryBytes: 67108864n, cpuQuotaUs: 50_000n, pids: 10 });
  assert.equal(await tree.read("run/cpu.max"), "50000 100000");
  assert.equal(await tree.read("run/pids.max"), "10");
  assert.equal(await tree.read("run/memory.max"), "67108864");
  assert.equal(await tree.read("run/cpu.weight"), "100\n");
  await tree.write({ "run/cpu.max": "50000 100000" });
  await tree.cgroups.update("c", { cpuPeriodUs: 200_000n });
  assert.equal(await tree.read("run/cpu.max"), "50000 200000");
});

test("when one limit cannot be set, those before it get their old values back", async () => {
  await using tree = await makeTree();
  const { "run/memory.max": _, ...others } = LIMITS;
  await tree.write(others);
  const changes = { cpuset: "0-1", cpuWeight: 500, cpuQuotaUs: 5000n, pids: 100, memoryBytes: 1n };
  await assert.rejects(tree.cgroups.update("c", changes), { reason: "INVALID_ARGUMENT" });
  assert.equal((await tree.read("run/cpu.weight")).trim(), "100");
  assert.match(await tree.read("run/cpu.max"), /^max 100000/);
  assert.match(await tree.read("run/pids.max"), /^max/);
  assert.match(await tree.read("run/cpuset.cpus"), /^\n/);
});

test("limits that make no sense, or that would kill, are refused before anything is touched", async () => {
  await using tree = await makeTree();
  await tree.write({ ...LIMITS, "run/memory.stat": "anon 4096\nfile 9999999\nshmem 1\n" });
  for (const changes of [
    { memoryBytes: 4096n },
    { cpuWeight: 0 },
    { cpuWeight: 10_001 },
    { cpuPeriodUs: 999n },
    { cpuQuotaUs: 1n },
    { cpuset: "0;1" },
  ]) {
    await assert.rejects(tree.cgroups.update("c", { pids: 5, ...changes }), { reason: "INVALID_ARGUMENT" });
  }
  assert.equal(await tree.read("run/pids.max"), "max\n");
  await tree.cgroups.update("c", { memoryBytes: 4097n });
});

test("stats are what the files say, whole and below the limits", async () => {
  await using tree = await makeTree();
  await tree.write({
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\n",
    "run/cpu.stat": "usage_usec 1\nnr_periods 7\nnr_throttled 3\nthrottled_usec 99\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.swap.current": "12\n",
    "memory.events": "oom 2\noom_kill 1\noom_group_kill 0\n",
    "memory.stat": "anon 1\nfile 2\n",
    "run/memory.max": "16384\n",
    "pids.current": "4\n",
    "run/pids.max": "max\n",
    "io.stat": "8:0 \n8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.events": "max 5\n",
  });
  assert.deepEqual(await tree.cgroups.stats("c"), {
    cpu: { usageUs: 30n, userUs: 20n, systemUs: 10n, periods: 7n, throttledPeriods: 3n, throttledUs: 99n },
    memory: {
      usageBytes: 4096n,
      peakBytes: 8192n,
      limitBytes: 16384n,
      swapBytes: 12n,
      oomKills: 1n,
      detail: { anon: 1n, file: 2n },
    },
    pids: { current: 4n },
    blockIo: [{ device: "8:16", readBytes: 1n, writtenBytes: 2n, reads: 3n, writes: 4n }],
    hugetlb: [{ pageSize: "2MB", usageBytes: 2097152n, failures: 5n }],
  });
  assert.deepEqual(await tree.cgroups.stats("gone").then((stats) => stats.pids), { current: 0n });
});

test("the kernel's tables of disks and network devices", () => {
  assert.deepEqual(parseBlockIo("garbage\n254:0 rios=9\n"), [
    { device: "254:0", readBytes: 0n, writtenBytes: 0n, reads: 9n, writes: 0n },
  ]);
  const table = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      200       4    0    0    0     0       0          0
  eth0:12345678901234567890 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
`;
  const [lo, eth0] = parseNetwork(table);
  assert.deepEqual([lo?.name, lo?.receivedBytes, lo?.sentBytes, lo?.sentPackets], ["lo", 100n, 200n, 4n]);
  assert.deepEqual(eth0, {
    name: "eth0",
    receivedBytes: 12345678901234567890n,
    receivedPackets: 1n,
    receiveErrors: 2n,
    receiveDropped: 3n,
    sentBytes: 8n,
    sentPackets: 9n,
    sendErrors: 10n,
    sendDropped: 11n,
  });
});
