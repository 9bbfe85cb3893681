/**
 * The owner dies at each step of operations on devices, mounts, storage and volumes: a write of state, a call of the hypervisor, a
 * call of the agent. On twins; test/fault/kill-anywhere.ts does it to real VMs.
 */
import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { findBackEnds } from "../devices/index.ts";
import type { SandboxHandle } from "./interface.ts";

const MIB = 2 ** 20;
/** Of each operation every so many steps are tried; 1 takes a minute or two. */
const STRIDE = Number(process.env["BELLJAR_KILL_STRIDE"] ?? 5);

interface World {
  readonly runtime: MemoryRuntime;
  readonly file: string;
  readonly directory: string;
  readonly sandbox: () => Promise<SandboxHandle>;
}

interface Scenario {
  readonly name: string;
  readonly base?: (world: World) => Promise<unknown>;
  readonly operate: (world: World) => Promise<unknown>;
  /** What can be seen of it, as a text; before or after, nothing between. */
  readonly look: (world: World) => Promise<unknown>;
}

const devices = async ({ sandbox }: World): Promise<unknown> =>
  (await (await sandbox()).devices.list()).filter(({ isContainers }) => !isContainers).map(({ state }) => state);
const containers = async ({ sandbox }: World): Promise<unknown> =>
  (await (await sandbox()).info()).containers.map(({ name, state }) => `${name} ${state}`).slice(1);
const memory = async ({ sandbox }: World): Promise<unknown> => (await (await sandbox()).info()).memoryMib;
const volumes = async ({ runtime }: World): Promise<unknown> =>
  (await runtime.core.volumes.list()).map(({ name }) => name);

const addDevice = async ({ sandbox, file }: World): Promise<unknown> =>
  (await sandbox()).devices.add({ kind: "block", path: file });
/** By virtiofsd, which runs. */
const addServed = async ({ sandbox, directory }: World): Promise<unknown> =>
  (await sandbox()).devices.add({ kind: "vhost-user-fs", tag: "shared", directory });
const mount = async ({ sandbox, directory }: World): Promise<unknown> =>
  (await sandbox()).containers.create({
    image: "busybox",
    name: "second",
    mounts: [
      { type: "volume", source: "data", target: "/data" },
      { type: "tmpfs", target: "/scratch" },
      { type: "bind", source: directory, target: "/live", how: "live" },
    ],
  });

const scenarios: readonly Scenario[] = [
  { name: "add a device", operate: addDevice, look: devices },
  {
    name: "remove a device",
    base: addDevice,
    operate: async ({ sandbox, file }) => (await sandbox()).devices.remove(file),
    look: devices,
  },
  { name: "add a served device", operate: addServed, look: devices },
  {
    name: "remove a served device",
    base: addServed,
    operate: async ({ sandbox }) => {
      const [served] = (await (await sandbox()).devices.list()).filter(({ kind }) => kind === "vhost-user-fs");
      await (await sandbox()).devices.remove(served?.id ?? "");
    },
    look: devices,
  },
  { name: "mount", operate: mount, look: containers },
  {
    name: "unmount",
    base: mount,
    operate: async ({ sandbox }) => (await (await sandbox()).containers.get("second")).delete(),
    look: containers,
  },
  { name: "grow", operate: async ({ sandbox }) => (await sandbox()).update({ memoryMib: 384 }), look: memory },
  {
    name: "shrink",
    base: async ({ sandbox }) => (await sandbox()).update({ memoryMib: 384 }),
    operate: async ({ sandbox }) => (await sandbox()).update({ memoryMib: 256 }),
    look: memory,
  },
  {
    name: "grow storage",
    operate: async ({ sandbox }) => (await sandbox()).main.growStorage(200 * MIB),
    look: async ({ sandbox }) => (await (await sandbox()).main.info()).storage,
  },
  {
    name: "create a volume",
    operate: ({ runtime }) => runtime.core.volumes.create({ name: "spare", sizeBytes: 64 * MIB }),
    look: volumes,
  },
  {
    name: "remove a volume",
    base: ({ runtime }) => runtime.core.volumes.create({ name: "spare", sizeBytes: 64 * MIB }),
    operate: ({ runtime }) => runtime.core.volumes.remove("spare"),
    look: volumes,
  },
];

/** What an owner does in an operation, until it dies: from then on nothing that it waits for comes. */
class Mortal {
  readonly #context = new AsyncLocalStorage<true>();
  readonly died = Promise.withResolvers<void>();
  readonly #over = Promise.withResolvers<never>();
  readonly #at: number;
  steps = 0;

  constructor(runtime: MemoryRuntime, at: number) {
    this.#at = at;
    this.#over.promise.catch(() => {});
    const { hypervisor, deps, guests } = runtime;
    const enter = hypervisor.enter.bind(hypervisor);
    hypervisor.enter = async (...call) => this.#step(() => enter(...call));
    const { disk } = deps;
    assert.ok(disk);
    for (const name of ["create", "rename", "unlink"] as const) {
      const act: (...args: never[]) => Promise<unknown> = disk[name].bind(disk);
      Object.assign(disk, { [name]: (...args: never[]) => this.#step(() => act(...args)) });
    }
    const { connect } = guests;
    const connectAgent: typeof connect = async (options) => {
      const link = await connect(options);
      const call: typeof link.call = (...args) => this.#step(() => link.call(...args));
      return { ...link, call };
    };
    Object.assign(deps, { connectAgent });
  }

  live<T>(work: () => Promise<T>): Promise<T> {
    return this.#context.run(true, work);
  }

  /** It is gone; its calls come back, for the test to end. */
  bury(): void {
    this.#over.reject(new Error("the owner is dead"));
  }

  async #step<T>(act: () => Promise<T>): Promise<T> {
    if (this.#context.getStore() === true) {
      this.steps += 1;
      if (this.steps >= this.#at) {
        this.died.resolve();
        await this.#over.promise;
      }
    }
    return await act();
  }
}

async function makeWorld(t: TestScope, at: number): Promise<World & { mortal: Mortal }> {
  const runtime = await MemoryRuntime.open(t);
  const mortal = new Mortal(runtime, at);
  const file = join(await tempDir(t), "disk");
  await writeFile(file, Buffer.alloc(512));
  const directory = await tempDir(t);
  await runtime.reopen();
  const config = { image: "busybox", name: "box", memoryMib: 256, storageBytes: 100 * MIB, vhostUser: true };
  await runtime.core.sandboxes.create(config);
  return { runtime, mortal, file, directory, sandbox: () => runtime.core.sandboxes.get("box") };
}

/** Whether the owner died at this step; the operation may have fewer. */
async function killAt(t: TestScope, scenario: Scenario, at: number): Promise<boolean> {
  const world = await makeWorld(t, at);
  const { runtime, mortal } = world;
  const look = async (): Promise<string> => JSON.stringify(await scenario.look(world));
  await scenario.base?.(world);
  const before = await look();
  const operation = mortal.live(() => scenario.operate(world));
  operation.catch(() => {});
  t.after(() => mortal.bury());
  const died = await Promise.race([mortal.died.promise.then(() => true), operation.then(() => false)]);
  if (!died) return false;
  const where = `${scenario.name}, step ${at}`;
  await runtime.takeOver();
  const sandbox = await world.sandbox();
  // On a host under load the new owner may wait for its agent.
  await until(async () => (await sandbox.info()).problem === undefined);
  assert.equal((await sandbox.info()).state, "running", where);
  assert.equal((await sandbox.exec(["echo", "on"])).stdout, "on\n", where);
  const vm = runtime.hypervisor.vms.get(sandbox.id) ?? assert.fail(where);
  const owned = (await sandbox.devices.list()).filter(({ kind }) => kind === "block").map(({ id }) => id);
  const plugged = vm.disks.map(({ serial }) => serial).filter((serial) => serial !== "root");
  assert.deepEqual([...plugged].sort(), [...owned].sort(), `${where}: what is plugged is in the state`);
  const served = (await findBackEnds(runtime.deps.runDir)).map(({ socketPath }) => socketPath);
  assert.equal(new Set(served).size, vm.devices.length, `${where}: each device has its program`);
  // What was not done yet can be done now; what was done stays.
  if ((await look()) === before) await scenario.operate(world).catch(() => {});
  const after = await look();
  assert.notEqual(after, before, where);
  await sandbox.delete({ force: true });
  for (const { name } of await runtime.core.volumes.list()) await runtime.core.volumes.remove(name);
  assert.deepEqual(runtime.hypervisor.live, [], where);
  assert.deepEqual(await findBackEnds(runtime.deps.runDir), [], where);
  assert.deepEqual(await readdir(runtime.sandboxesDir), [], where);
  const left = await readdir(join(runtime.deps.rootDir, "volumes")).catch(() => []);
  assert.deepEqual(left, [], where);
  return true;
}

for (const scenario of scenarios) {
  test(`an owner that dies at any step: ${scenario.name}`, async (t) => {
    let kills = 0;
    for (let at = 1; await killAt(t, scenario, at); at += STRIDE) kills += 1;
    t.diagnostic(`${kills} steps`);
    assert.ok(kills > 0);
  });
}
