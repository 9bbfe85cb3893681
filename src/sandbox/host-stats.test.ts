import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { readHostStats } from "./host-stats.ts";

test("host stats: CPU time, memory and threads of a process are what the kernel says elsewhere", async () => {
  const before = process.cpuUsage();
  const stats = await readHostStats(process.pid);
  const after = process.cpuUsage();
  // The kernel counts ticks of 10 ms, each of user and system time rounded down.
  assert.ok(stats.cpuUs <= BigInt(after.user + after.system));
  assert.ok(stats.cpuUs >= BigInt(before.user + before.system) - 40_000n, `${stats.cpuUs}`);
  const status = await readFile("/proc/self/status", "utf8");
  assert.equal(stats.threads, Number(/^Threads:\s+(\d+)$/m.exec(status)?.[1]));
  const residentBytes = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  assert.ok(Math.abs(Number(stats.residentBytes) - residentBytes) < 16 * 1024 * 1024, `${stats.residentBytes}`);
});

test("host stats: a name with spaces and parentheses changes nothing; a process that is gone is said to be", async (t) => {
  const child = spawn("sh", ["-c", "printf 'a) 1 (2' > /proc/self/comm; echo; read line"], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  t.after(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  const pid = child.pid ?? 0;
  assert.match(await readFile(`/proc/${pid}/stat`, "utf8"), /\(a\) 1 \(2\)/);
  assert.equal((await readHostStats(pid)).threads, 1);
  child.stdin.end();
  await once(child, "close");
  await assert.rejects(readHostStats(pid), { reason: "VMM_DIED" });
});
