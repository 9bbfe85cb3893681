import assert from "node:assert/strict";
import { test } from "../../../test/support/harness.ts";
import { apiLimits } from "../../base/index.ts";
import { readVmmMemory, VmmMemoryCache } from "./vmm-memory.ts";

test("memory of VMs: scraped again and again, each is asked once, and few at a time", async () => {
  const asked: number[] = [];
  const cache = new VmmMemoryCache(async (pid) => {
    asked.push(pid);
    return { privateBytes: pid, sharedBytes: 1 };
  });
  const pids = Array.from({ length: apiLimits.memoryReadsMax + 5 }, (_, index) => index + 1);
  await Promise.all([cache.read(pids), cache.read(pids), cache.read(pids)]);
  assert.equal(asked.length, apiLimits.memoryReadsMax);
  const { privateBytes, sharedBytes } = await cache.read(pids);
  assert.deepEqual([asked.length, sharedBytes], [pids.length, pids.length]);
  assert.equal(privateBytes, (pids.length * (pids.length + 1)) / 2);
  await cache.read(pids);
  assert.equal(new Set(asked).size, asked.length);
  assert.deepEqual(await cache.read([1]), { privateBytes: 1, sharedBytes: 1 });
  const own = await readVmmMemory(process.pid);
  assert.ok(own.privateBytes > 1_000_000);
  assert.deepEqual(await readVmmMemory(2 ** 30), { privateBytes: 0, sharedBytes: 0 });
});
