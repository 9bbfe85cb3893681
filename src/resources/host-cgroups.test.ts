import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { tempDir, test } from "../../test/support/harness.ts";
import { silentLog } from "../base/index.ts";
import { findHierarchies } from "./cgroup-hierarchies.ts";
import { openHostCgroups, readHierarchies } from "./host-cgroups.ts";

const V2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
const V1 = [
  "31 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755",
  "32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
  "33 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
  "34 31 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer",
  "35 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
].join("\n");

test("groups are found below this process's own, in either version", async () => {
  assert.deepEqual(findHierarchies(V2, "0::/user.slice/session-1.scope\n"), [
    { version: 2, controllers: [], dir: "/sys/fs/cgroup/user.slice/session-1.scope", isWritable: true },
  ]);
  assert.deepEqual(findHierarchies(V1, "3:cpu,cpuacct:/\n2:memory:/jobs/7\n0::/\n"), [
    { version: 1, controllers: ["cpu", "cpuacct"], dir: "/sys/fs/cgroup/cpu,cpuacct", isWritable: true },
    { version: 1, controllers: ["memory"], dir: "/sys/fs/cgroup/memory/jobs/7", isWritable: true },
  ]);
});

test("what a container shows of its host's groups is taken as it is shown", async () => {
  const inside = "31 24 0:27 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 ro";
  assert.deepEqual(findHierarchies(inside, "0::/docker/abc/x\n"), [
    { version: 2, controllers: [], dir: "/sys/fs/cgroup/x", isWritable: false },
  ]);
  assert.deepEqual(findHierarchies(inside, "0::/other\n"), [], "its own group is not to be seen");
  assert.deepEqual(findHierarchies("nonsense\n", "nonsense\n"), []);
  assert.equal(findHierarchies(V2.replace("/sys/fs/cgroup", "/a\\040b"), "0::/\n")[0]?.dir, "/a b");
});

for (const version of [1, 2] as const) {
  test(`a process is moved into a group, which goes when the process has ended: version ${version}`, async (t) => {
    const usable = await hierarchiesOf(version);
    if (usable.length === 0) return t.diagnostic(`this host has no groups of version ${version} to give`);
    const cgroups = openHostCgroups({ rootDir: await tempDir(t), log: silentLog, hierarchies: async () => usable });
    const dirs = await cgroups.plan("0123456789ab");
    assert.equal(dirs.length, usable.length);
    await cgroups.remove(dirs);
    await cgroups.create(dirs);
    await cgroups.create(dirs);
    const child = spawn("sleep", ["100"]);
    await cgroups.add(dirs, child.pid ?? 0);
    for (const dir of dirs) assert.equal((await readFile(join(dir, "cgroup.procs"), "utf8")).trim(), String(child.pid));
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
    await cgroups.add(dirs, child.pid ?? 0);
    await cgroups.remove(dirs);
    for (const dir of dirs) await assert.rejects(access(dirname(dir)), { code: "ENOENT" });
  });
}

test("a host without groups gives none, and that is no error", async (t) => {
  const rootDir = await tempDir(t);
  const broken = async (): Promise<never> => {
    throw new Error("no /proc");
  };
  const closed = async () => [{ version: 2, controllers: [], dir: "/sys/fs/cgroup", isWritable: false }] as const;
  for (const hierarchies of [broken, closed]) {
    const cgroups = openHostCgroups({ rootDir, log: silentLog, hierarchies });
    assert.deepEqual(await cgroups.plan("0123456789ab"), []);
  }
  const gone = openHostCgroups({ rootDir, log: silentLog });
  await assert.rejects(gone.create([join(rootDir, "not", "there", "belljar", "00000000", "0123456789ab")]));
});

/** Version 2 beside a full version 1 counts nothing, but holds processes all the same. */
async function hierarchiesOf(version: 1 | 2): Promise<Awaited<ReturnType<typeof readHierarchies>>> {
  const found = (await readHierarchies()).filter((each) => each.version === version && each.isWritable);
  if (found.length > 0 || version === 1) return found;
  const mountinfo = await readFile("/proc/self/mountinfo", "utf8");
  const own = await readFile("/proc/self/cgroup", "utf8");
  const unified = mountinfo.split("\n").filter((line) => line.includes(" - cgroup2 "));
  return findHierarchies(unified.join("\n"), own).filter(({ isWritable }) => isWritable && process.getuid?.() === 0);
}
