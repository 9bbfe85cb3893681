import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { type LogFields, silentLog } from "../base/index.ts";
import { acquireLock, systemDisk } from "../store/index.ts";
import { Pool, Templates } from "./index.ts";

interface World {
  readonly runtime: MemoryRuntime;
  readonly host: { availableMib: number };
  /** Until so many have come to wait, those included that do not any more. */
  waited(count: number): Promise<void>;
}

async function open(t: TestScope, size = 1): Promise<World> {
  const host = { availableMib: 16_384 };
  const runtime = await MemoryRuntime.open(t);
  const { hypervisor, connectAgent, runDir, clock: slow } = runtime.deps;
  const told = new Set<unknown>();
  const log = { ...silentLog, info: (_: string, fields?: LogFields) => void told.add(fields?.["sandbox"]) };
  const { networks, cgroups } = runtime;
  const clock = { ...slow, sleep: async () => {} };
  const parts = { hypervisor, connectAgent, runDir, clock, log };
  const templates = new Templates({ ...parts, dir: join(t.dir, "templates"), disk: systemDisk, lock: acquireLock });
  const pool = new Pool({ ...parts, networks, cgroups, size, availableMemoryMib: async () => host.availableMib });
  Object.assign(runtime.deps, { templates, pool });
  await runtime.reopen();
  return { runtime, host, waited: (count) => until(() => told.size === count) };
}

const live = ({ runtime }: World): number => runtime.hypervisor.live.length;

test("a sandbox takes the VM that waits for it, which is told who it is; another one takes its place", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  const first = await sandboxes.create({ image: "busybox" });
  await world.waited(1);
  assert.deepEqual([live(world), (await readdir(world.runtime.deps.runDir)).length], [2, 2]);
  const second = await sandboxes.create({ image: "busybox" });
  assert.ok(world.runtime.hypervisor.calls.some((call) => call.startsWith("attach")));
  assert.equal((await second.exec(["echo", "on"])).stdout, "on\n");
  const infos = await Promise.all([first.info(), second.info()]);
  assert.equal(infos[1]?.vmm?.template, infos[0]?.vmm?.template);
  assert.notEqual(infos[1]?.vmm?.template, undefined);
  await world.waited(2);
  const { ids, moves } = world.runtime.cgroups;
  assert.deepEqual(
    [ids.length, moves.filter((id) => id === second.id)],
    [3, [second.id]],
    "it was in its group already",
  );
  await world.runtime.core.release();
  // Sandboxes run on, what waited is gone.
  assert.equal(live(world), 2);
});

test("none waits for another kind, for a sandbox that boots, or when memory is short", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  await sandboxes.create({ image: "busybox", template: false });
  world.host.availableMib = 512;
  await sandboxes.create({ image: "busybox" });
  assert.equal(live(world), 2);
  world.host.availableMib = 16_384;
  await sandboxes.create({ image: "busybox" });
  await world.waited(1);
  const attached = world.runtime.hypervisor.calls.filter((call) => call.startsWith("attach")).length;
  await sandboxes.create({ image: "busybox", memoryMib: 512 });
  assert.equal(world.runtime.hypervisor.calls.filter((call) => call.startsWith("attach")).length, attached);
});

test("a VM that ended while it waited, or is taken over, is no reason for a failure", async (t) => {
  const world = await open(t);
  const { hypervisor } = world.runtime;
  const { sandboxes } = world.runtime.core;
  const first = await sandboxes.create({ image: "busybox" });
  const taken = [first];
  await world.waited(1);
  const endWaiting = (): void => {
    const ids = new Set(taken.map(({ id }) => id));
    hypervisor.live.find(({ config }) => !ids.has(config.id))?.end({ cause: "died", detail: "the test" });
  };
  endWaiting();
  taken.push(await sandboxes.create({ image: "busybox" }));
  await world.waited(2);
  const letGo = hypervisor.hold("attach");
  const third = sandboxes.create({ image: "busybox" });
  await until(() => hypervisor.calls.some((call) => call.startsWith("attach")));
  endWaiting();
  letGo();
  taken.push(await third);
  assert.equal((await taken[2]?.info())?.state, "running");
  await world.waited(3);
  assert.equal(live(world), 4);
});

test("a VM that waited for a sandbox which did not come to be is ended", async (t) => {
  const world = await open(t);
  const { sandboxes } = world.runtime.core;
  await sandboxes.create({ image: "busybox" });
  await world.waited(1);
  await assert.rejects(sandboxes.create({ image: "missing" }), { reason: "IMAGE_NOT_FOUND" });
  assert.equal(live(world), 1);
  assert.equal((await readdir(world.runtime.deps.runDir)).length, 1);
});

test("where a network is asked for, a VM waits in the place where that will be, with its network device", async (t) => {
  const world = await open(t);
  const { hypervisor, guests, networks } = world.runtime;
  const { sandboxes } = world.runtime.core;
  const config = { image: "busybox", network: { mode: "bridge" } } as const;
  const idOfWaiting = async (): Promise<string> => {
    let found = "";
    await until(() => {
      found = [...networks.prepared.keys()].find((id) => guests.guests.get(id)?.networks.length === 1) ?? "";
      return found !== "";
    });
    return found;
  };
  const calls = (what: string): number => hypervisor.calls.filter((call) => call.startsWith(what)).length;
  await sandboxes.create(config);
  const waiting = await idOfWaiting();
  const second = await sandboxes.create(config);
  assert.deepEqual([second.id, calls("attach"), calls(`plugDevice ${waiting}`)], [waiting, 1, 1]);
  assert.match((await second.info()).network?.namespace ?? "", new RegExp(`${waiting}$`));
  assert.equal(guests.guest(waiting).networks.length, 2, "it was told of its own network");
  // One with another kind of network takes none.
  await sandboxes.create({ image: "busybox", network: { mode: "user" } });
  assert.equal(calls("attach"), 1);
  // What has the name of its namespace is another one by now.
  const stray = await idOfWaiting();
  networks.isAt = async () => {
    hypervisor.vms.get(stray)?.end({ cause: "died", detail: "the test" });
    return false;
  };
  const third = await sandboxes.create(config);
  assert.deepEqual([third.id, calls("attach"), (await third.info()).state], [stray, 1, "running"]);
  await world.runtime.core.release();
  assert.equal(networks.prepared.size, 0);
});
