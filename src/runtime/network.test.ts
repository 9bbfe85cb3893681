import assert from "node:assert/strict";
import { readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "../../test/support/harness.ts";
import { MemoryNetworks } from "../../test/support/memory-networks.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { BelljarError } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";

const networked = {
  image: "busybox",
  network: { mode: "user", ports: [{ hostPort: 8080, containerPort: 80 }, { containerPort: 81 }] },
} as const;

async function open(t: Parameters<typeof MemoryRuntime.open>[0]): Promise<{
  readonly world: MemoryRuntime;
  readonly networks: MemoryNetworks;
}> {
  const networks = new MemoryNetworks();
  return { networks, world: await MemoryRuntime.open(t, { networks }) };
}

test("network: the VM runs in its namespace, the guest is told, and all of it ends with the VM", async (t) => {
  const { world, networks } = await open(t);
  await using sandbox = await world.core.sandboxes.create(networked);
  const { vm, networks: told, configured } = world.guests.guest(sandbox.id);
  assert.equal(vm.config.networkNamespace, `/run/netns/belljar-00000000-${sandbox.id}`);
  assert.deepEqual(vm.devices, [{ kind: "net", id: "nic0", tap: "tap0", macAddress: "02:00:00:00:00:01", port: 0 }]);
  assert.deepEqual(configured.at(-1)?.dnsLines, ["nameserver 169.254.1.1"]);
  assert.equal(told.length, 1);
  assert.deepEqual(told[0]?.interfaces?.[0]?.addresses, ["10.0.2.15/32"]);
  const { network } = await sandbox.info();
  assert.deepEqual(
    network?.ports.map(({ hostAddress, hostPort }) => [hostAddress, hostPort]),
    [
      ["0.0.0.0", 8080],
      ["0.0.0.0", 40_001],
    ],
  );
  assert.equal((await sandbox.stats()).deniedPackets, 3);
  const events = sandbox.watch()[Symbol.asyncIterator]();
  await sandbox.stop();
  // What was denied is told before the rules go, at the latest.
  for (;;) {
    const { value } = await events.next();
    if (value?.kind === "denied") {
      assert.equal(value.packets, 3);
      break;
    }
    assert.notEqual(value?.kind, "deleted");
  }
  assert.deepEqual([...networks.made.keys(), ...networks.planned.keys()], []);
  assert.equal((await sandbox.info()).network, undefined);
  await sandbox.start();
  assert.equal(networks.made.size, 1);
  await sandbox.delete({ force: true });
  assert.equal(networks.made.size, 0);
});

test("network: a failure at any step leaves nothing; a free port that was taken meanwhile is another one", async (t) => {
  const { world, networks } = await open(t);
  const failure = new BelljarError("NETWORK_FAILED", "the test says no");
  for (const step of ["plan", "make"] as const) {
    networks.failures.set(step, failure);
    await assert.rejects(world.core.sandboxes.create(networked), { reason: "NETWORK_FAILED" });
  }
  world.hypervisor.fail("plugDevice", failure);
  await assert.rejects(world.core.sandboxes.create(networked), { reason: "NETWORK_FAILED" });
  world.guests.fault("configureNetwork", { kind: "fail", error: failure });
  await assert.rejects(world.core.sandboxes.create(networked), { reason: "NETWORK_FAILED" });
  assert.deepEqual([...networks.made.keys(), ...networks.planned.keys()], []);
  assert.deepEqual(await readdir(world.sandboxesDir), []);
  assert.deepEqual(world.hypervisor.live, []);
  networks.failures.set("make", new BelljarError("PORT_IN_USE", "taken"));
  await using _sandbox = await world.core.sandboxes.create(networked);
  assert.equal(networks.made.size, 1);
});

test("network: a new owner leaves what runs alone, and removes what belongs to nobody", async (t) => {
  const { world, networks } = await open(t);
  const { id } = await world.core.sandboxes.create(networked);
  const [made] = networks.made.values();
  assert.ok(made !== undefined && made.mode !== "netns");
  networks.made.set("belljar-00000000-00c0ffee0001", { ...made, namespace: "belljar-00000000-00c0ffee0001" });
  networks.planned.clear();
  const core = await world.reopen();
  assert.deepEqual([...networks.made.keys()], [made.namespace]);
  assert.deepEqual([...networks.planned.keys()], [made.namespace]);
  assert.deepEqual(
    core.recovered.filter(({ kind }) => kind === "network").map(({ name }) => name),
    ["00c0ffee0001"],
  );
  const sandbox = await core.sandboxes.get(id);
  assert.equal((await sandbox.info()).network?.namespace, `/run/netns/${made.namespace}`);
  world.guests.guest(id).vm.end({ cause: "died", detail: "the test ended it" });
  for await (const event of sandbox.watch()) if (event.kind === "state" && event.state === "stopped") break;
  assert.equal(networks.made.size, 0);
  await sandbox.delete();
});

test("network: a fork has a namespace, a hardware address and ports of its own, and its guest is told before it runs on", async (t) => {
  const networks = new MemoryNetworks();
  const world = await MemoryRuntime.open(t, { networks, disk: systemDisk });
  await using source = await world.core.sandboxes.create(networked);
  const calls: string[] = [];
  world.guests.onCall = (call) => calls.push(call);
  const [fork] = await source.fork(1);
  assert.ok(fork !== undefined);
  const guest = world.guests.guest(fork.id);
  assert.equal(guest.vm.config.networkNamespace, `/run/netns/belljar-00000000-${fork.id}`);
  assert.deepEqual(
    guest.vm.devices.map(({ id }) => id),
    ["nic0"],
  );
  const { network } = await fork.info();
  assert.deepEqual(
    network?.ports.map(({ hostPort, containerPort }) => [hostPort, containerPort]),
    [
      [40_000, 80],
      [40_001, 81],
    ],
  );
  assert.equal(guest.networks.at(-1)?.interfaces?.[0]?.macAddress, network?.macAddress);
  // The source runs on at once; the fork when it knows where it is.
  assert.deepEqual(
    calls.filter((call) => call.startsWith("configure") || call === "thaw"),
    ["thaw", "thaw"],
  );
  assert.equal((await source.info()).network?.ports[0]?.hostPort, 8080);
  await fork.delete({ force: true });
  assert.equal(networks.made.size, 1);

  await source.checkpoint({ name: "one" });
  // The image's only layer.
  await writeFile(join(dirname(world.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  await using restored = await world.core.checkpoints.restore("one", {
    ports: [{ hostPort: 9090, containerPort: 80 }],
  });
  assert.deepEqual(
    (await restored.info()).network?.ports.map(({ hostPort, containerPort }) => [hostPort, containerPort]),
    [[9090, 80]],
  );
});

test("network: a sandbox that is linked to another one knows its name, as long as that is there", async (t) => {
  const { world, networks } = await open(t);
  const bridge = { image: "busybox", network: { mode: "bridge" } } as const;
  await using db = await world.core.sandboxes.create({ ...bridge, name: "db" });
  await using plain = await world.core.sandboxes.create({ ...networked, name: "plain" });
  const linkedTo = (...links: readonly string[]): Promise<unknown> =>
    world.core.sandboxes.create({ ...bridge, network: { mode: "bridge", links } });
  await assert.rejects(linkedTo("nobody"), { reason: "SANDBOX_NOT_FOUND" });
  await assert.rejects(linkedTo("db:a b"), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(linkedTo(plain.name), { reason: "INVALID_ARGUMENT", message: /on no bridge/ });
  const wrong = { image: "busybox", network: { mode: "user", links: ["db"] } } as const;
  await assert.rejects(world.core.sandboxes.create(wrong), { reason: "INVALID_ARGUMENT" });

  await using web = await world.core.sandboxes.create({
    ...bridge,
    network: { mode: "bridge", links: ["db", "db:store"] },
  });
  const { configured } = world.guests.guest(web.id);
  const told = (): unknown => configured.filter(({ replaceHosts }) => replaceHosts === true).at(-1)?.hostLines;
  assert.deepEqual(told(), ["10.88.0.9\tdb", "10.88.0.9\tstore"]);
  await db.stop();
  for (const listener of networks.bridgeListeners) listener();
  for (const endMs = performance.now() + 5_000; performance.now() < endMs; await sleep(5)) {
    if (JSON.stringify(told()) === "[]") break;
  }
  assert.deepEqual(told(), []);
});
