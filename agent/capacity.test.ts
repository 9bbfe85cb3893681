import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type TestScope, tempDir, test } from "../test/support/harness.ts";
import { Capacity } from "./capacity.ts";

const MIB = 1024 * 1024;
const PRESENT = 3;

async function guest(t: TestScope): Promise<{
  readonly capacity: Capacity;
  readonly memory: { totalBytes: number; availableBytes: number };
  readonly bounds: number[];
  readonly tools: string[];
  online(): Promise<string>;
}> {
  const sysDir = await tempDir(t);
  const put = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(join(sysDir, path)), { recursive: true });
    await writeFile(join(sysDir, path), text);
  };
  await put("module/memory_hotplug/parameters/online_policy", "contig-zones");
  await put("devices/system/memory/auto_online_blocks", "offline");
  await put("devices/system/cpu/cpu0/topology", "");
  for (let cpu = 1; cpu < PRESENT; cpu += 1) await put(`devices/system/cpu/cpu${cpu}/online`, "0\n");
  await put("devices/system/cpu/cpuidle/state", "");
  const memory = { totalBytes: 200 * MIB, availableBytes: 150 * MIB };
  const bounds: number[] = [];
  const tools: string[] = [];
  const capacity = new Capacity({
    sysDir,
    runTool: async (command, args) => void tools.push([command, ...args].join(" ")),
    system: { memory: async () => memory },
    cgroups: {
      bound: async (bytes) => {
        bounds.push(bytes / MIB);
        return bytes;
      },
    },
  });
  await capacity.begin();
  const read = async (cpu: number): Promise<string> =>
    (await readFile(join(sysDir, `devices/system/cpu/cpu${cpu}/online`), "utf8")).trim();
  return { capacity, memory, bounds, tools, online: async () => `${await read(1)}${await read(2)}` };
}

test("CPUs are online as many as there should be, and containers bounded by what there is", async (t) => {
  const { capacity, memory, bounds, tools, online } = await guest(t);
  memory.totalBytes += 64 * MIB;
  assert.deepEqual(await capacity.fit({ cpus: 2, pluggedBytes: 64 * MIB }), { cpus: 2, pluggedBytes: 64 * MIB });
  assert.equal(await online(), "10");
  assert.deepEqual(bounds, [150, 150 + 64 - 1], "what describes the new memory is taken from the old");
  await capacity.fit({ cpus: 3, pluggedBytes: 64 * MIB });
  assert.equal(await online(), "11");
  memory.totalBytes -= 64 * MIB;
  assert.deepEqual(await capacity.fit({ cpus: 1, pluggedBytes: 0 }), { cpus: 1, pluggedBytes: 0 });
  assert.equal(await online(), "00");
  assert.equal(bounds.at(-1), 150);
  assert.deepEqual(tools, ["busybox modprobe virtio_mem"], "once");
});

test("a guest that is given what it does not see says so after a while", async (t) => {
  const { capacity, bounds } = await guest(t);
  assert.deepEqual(await capacity.fit({ cpus: PRESENT, pluggedBytes: 64 * MIB }), { cpus: PRESENT, pluggedBytes: 0 });
  assert.equal(bounds.at(-1), 150);
});

test("memory that is in use, or that the guest must have to work with, is not given away", async (t) => {
  const { capacity, memory, bounds } = await guest(t);
  memory.totalBytes += 256 * MIB;
  memory.availableBytes = 348 * MIB;
  assert.equal((await capacity.makeRoom({ cpus: 1, pluggedBytes: 0 })).pluggedBytes, 0);
  assert.equal(bounds.at(-1), 150);
  memory.availableBytes = 148 * MIB;
  assert.equal((await capacity.makeRoom({ cpus: 1, pluggedBytes: 0 })).pluggedBytes, 156 * MIB);
  assert.equal((await capacity.makeRoom({ cpus: 1, pluggedBytes: 200 * MIB })).pluggedBytes, 200 * MIB);
  memory.availableBytes = 0;
  assert.equal((await capacity.makeRoom({ cpus: 1, pluggedBytes: 0 })).pluggedBytes, 256 * MIB);
});
