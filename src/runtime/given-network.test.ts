import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "../../test/support/harness.ts";
import { foundVeth, MemoryNetworks } from "../../test/support/memory-networks.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { until } from "../../test/support/until.ts";
import { BelljarError } from "../base/index.ts";
import { systemDisk } from "../store/index.ts";

const given = { image: "busybox", network: { mode: "netns", path: "/run/netns/theirs" } } as const;

function theirs(): MemoryNetworks {
  const networks = new MemoryNetworks();
  const route = { interfaceName: "net1", destination: "default", gateway: "10.0.0.1" };
  networks.found = {
    interfaces: [foundVeth("net1", "10.0.0.2/24"), foundVeth("Eth.Odd", "10.1.0.2/24")],
    routes: [route],
    neighbours: [{ interfaceName: "net1", address: "10.0.0.1", macAddress: "0a:00:00:00:00:01" }],
    owners: [],
  };
  return networks;
}

test("given network: the VM gets every interface of the namespace, with its addresses, routes and neighbours", async (t) => {
  const networks = theirs();
  const world = await MemoryRuntime.open(t, { networks });
  await using sandbox = await world.core.sandboxes.create(given);
  const { vm, networks: told, configured } = world.guests.guest(sandbox.id);
  assert.equal(vm.config.networkNamespace, "/run/netns/theirs");
  assert.deepEqual(vm.devices, [
    { kind: "net", id: "nic0", tap: `bj${sandbox.id}0`, macAddress: "0a:00:00:00:00:02", port: 0 },
    { kind: "net", id: "nic1", tap: `bj${sandbox.id}1`, macAddress: "0a:00:00:00:00:02", port: 1 },
  ]);
  assert.deepEqual(configured.at(-1)?.dnsLines, ["nameserver 192.0.2.53"]);
  const last = told.at(-1);
  assert.deepEqual(
    last?.interfaces?.map(({ name, mtu, addresses }) => [name, mtu, addresses]),
    [
      ["net1", 1400, ["10.0.0.2/24"]],
      // A name that the guest's tools might not take.
      ["eth0", 1400, ["10.1.0.2/24"]],
    ],
  );
  assert.deepEqual(last?.routes, [{ interfaceName: "net1", destination: "default", gateway: "10.0.0.1" }]);
  assert.equal(last?.neighbours?.length, 1);
  const { network } = await sandbox.info();
  assert.deepEqual(
    [network?.mode, network?.namespace, network?.addresses],
    ["netns", "/run/netns/theirs", ["10.0.0.2", "10.1.0.2"]],
  );
  assert.deepEqual(
    network?.interfaces?.map(({ name, source, kind }) => [name, source, kind]),
    [
      ["net1", "net1", "veth"],
      ["eth0", "Eth.Odd", "veth"],
    ],
  );
  await sandbox.delete({ force: true });
  assert.deepEqual([...networks.made.keys(), ...networks.planned.keys()], []);
});

test("given network: interfaces are added, removed and followed while it runs", async (t) => {
  const networks = theirs();
  const world = await MemoryRuntime.open(t, { networks });
  await using sandbox = await world.core.sandboxes.create(given);
  const guest = world.guests.guest(sandbox.id);
  const nics = (): readonly string[] => guest.vm.devices.map(({ id }) => id);
  assert.equal(await sandbox.network.refresh(), false);

  await sandbox.network.removeInterface("eth0");
  assert.deepEqual(nics(), ["nic0"]);
  await assert.rejects(sandbox.network.removeInterface("eth0"), { reason: "INTERFACE_NOT_FOUND" });
  await assert.rejects(sandbox.network.addInterface("net9"), { reason: "INTERFACE_NOT_FOUND" });
  await sandbox.network.addInterface("Eth.Odd");
  assert.deepEqual(nics(), ["nic0", "nic1"]);
  await sandbox.network.addInterface("Eth.Odd");
  assert.deepEqual(
    (await sandbox.network.interfaces()).map(({ name, source }) => [name, source]),
    [
      ["net1", "net1"],
      ["eth0", "Eth.Odd"],
    ],
  );

  // One goes, one comes, one has another address; the number of the first is free again.
  networks.found = {
    ...networks.found,
    interfaces: [foundVeth("Eth.Odd", "10.1.0.9/24"), foundVeth("net3", "10.3.0.2/24")],
    routes: [{ interfaceName: "net3", destination: "10.4.0.0/16", gateway: "10.3.0.1" }],
  };
  assert.equal(await sandbox.network.refresh(), true);
  assert.deepEqual([...nics()].sort(), ["nic0", "nic1"]);
  const last = guest.networks.at(-1);
  assert.deepEqual(
    last?.interfaces?.map(({ name, addresses }) => [name, addresses]),
    [
      ["eth0", ["10.1.0.9/24"]],
      ["net3", ["10.3.0.2/24"]],
    ],
  );
  assert.equal(last?.replaceRoutes, true);
  assert.deepEqual(await sandbox.network.routes(), [
    { interfaceName: "net3", destination: "10.4.0.0/16", gateway: "10.3.0.1" },
  ]);

  // What changes is followed; while it is paused, once it goes on.
  await sandbox.pause();
  networks.found = { ...networks.found, interfaces: networks.found.interfaces.slice(0, 1), routes: [] };
  networks.onChange();
  assert.equal(nics().length, 2);
  await sandbox.resume();
  await until(() => nics().length <= 1);

  // Routes that somebody has set stay.
  await sandbox.network.setRoutes([{ interfaceName: "eth0", destination: "default", gateway: "10.1.0.1" }]);
  networks.found = { ...networks.found, routes: [] };
  await sandbox.network.refresh();
  assert.equal((await sandbox.network.routes())[0]?.gateway, "10.1.0.1");
  for (const route of [
    { interfaceName: "eth7", destination: "default" },
    { interfaceName: "eth0", destination: "10.0.0.0/99" },
    { interfaceName: "eth0", destination: "10.0.0.0/8", gateway: "fe80::1" },
  ]) {
    await assert.rejects(sandbox.network.setRoutes([route]), { reason: "INVALID_ARGUMENT" });
  }
});

test("given network: a plugging that fails leaves nothing; one that was cut short is taken away by the next owner", async (t) => {
  const networks = theirs();
  const world = await MemoryRuntime.open(t, { networks });
  const { id } = await world.core.sandboxes.create(given);
  const sandbox = await world.core.sandboxes.get(id);
  await sandbox.network.removeInterface("eth0");
  const failure = new BelljarError("NETWORK_FAILED", "the test says no");
  world.hypervisor.fail("plugDevice", failure);
  await assert.rejects(sandbox.network.addInterface("Eth.Odd"), { reason: "NETWORK_FAILED" });
  world.guests.fault("configureNetwork", { kind: "fail", error: failure });
  await assert.rejects(sandbox.network.addInterface("Eth.Odd"), { reason: "NETWORK_FAILED" });
  const guest = world.guests.guest(id);
  assert.deepEqual(
    guest.vm.devices.map(({ id: nic }) => nic),
    ["nic0"],
  );
  assert.equal((await sandbox.info()).network?.interfaces?.length, 1);

  // Its owner dies when the VM has it, and before the guest was told: the next one tells it.
  const goOn = world.guests.hold("configureNetwork");
  sandbox.network.addInterface("Eth.Odd").catch(() => {});
  await until(async () => (await sandbox.info()).network?.interfaces?.length === 2 && guest.vm.devices.length >= 2);
  const before = guest.networks.length;
  const taking = world.takeOver();
  await sleep(20);
  goOn();
  let next = await (await taking).sandboxes.get(id);
  assert.ok(guest.networks.length > before);
  assert.equal((await next.info()).network?.interfaces?.length, 2);

  // Its owner dies while the VM is being given it: it is not, then.
  await next.network.removeInterface("eth0");
  t.after(world.hypervisor.hold("plugDevice"));
  next.network.addInterface("Eth.Odd").catch(() => {});
  const plugs = (): number => world.hypervisor.calls.filter((call) => call.startsWith("plugDevice")).length;
  const begun = plugs();
  await until(() => plugs() !== begun);
  next = await (await world.takeOver()).sandboxes.get(id);
  assert.equal((await next.info()).network?.interfaces?.length, 1);
  await next.delete({ force: true });
});

test("given network: no copy has its source's namespace; a restored one has the one that is named", async (t) => {
  const networks = theirs();
  const world = await MemoryRuntime.open(t, { networks, disk: systemDisk });
  await using source = await world.core.sandboxes.create(given);
  await assert.rejects(source.fork(1), { reason: "INVALID_ARGUMENT" });
  await source.checkpoint({ name: "one" });
  // The image's only layer.
  await writeFile(join(dirname(world.deps.rootDir), `${"2".repeat(64)}.erofs`), "layer");
  const { checkpoints } = world.core;
  const report = await checkpoints.check("one");
  assert.deepEqual(
    report.findings.filter(({ fits }) => !fits).map(({ what }) => what),
    ["network"],
  );
  // It has two interfaces, wherever they lead.
  for (const mode of ["bridge", "none"] as const) {
    await assert.rejects(checkpoints.restore("one", { network: { mode } }), { reason: "CHECKPOINT_MISMATCH" });
  }
  await using restored = await checkpoints.restore("one", { network: { mode: "netns", path: "/run/netns/other" } });
  const { vm, networks: told } = world.guests.guest(restored.id);
  assert.equal(vm.config.networkNamespace, "/run/netns/other");
  assert.deepEqual(
    vm.devices.map((device) => (device.kind === "net" ? [device.id, device.tap] : [])),
    [
      ["nic0", `bj${restored.id}0`],
      ["nic1", `bj${restored.id}1`],
    ],
  );
  assert.equal(told.at(-1)?.interfaces?.length, 2);
  assert.deepEqual((await source.info()).network?.namespace, "/run/netns/theirs");
});

test("given network: a VM that is joined to nothing has nothing", async (t) => {
  const networks = theirs();
  networks.found = { interfaces: [], routes: [], neighbours: [], owners: [] };
  const world = await MemoryRuntime.open(t, { networks });
  await using sandbox = await world.core.sandboxes.create({
    image: "busybox",
    network: { ...given.network, model: "none" },
  });
  const { vm } = world.guests.guest(sandbox.id);
  assert.deepEqual([vm.config.networkNamespace, vm.devices], ["/run/netns/theirs", []]);
  assert.equal(await sandbox.network.refresh(), false);
});

test("given network: what a namespace of somebody else's cannot have is refused", async (t) => {
  const world = await MemoryRuntime.open(t, { networks: theirs() });
  const { network } = given;
  for (const wrong of [
    { ...network, path: undefined },
    { ...network, path: "relative" },
    { ...network, ports: [{ containerPort: 80 }] },
    { ...network, policy: { allow: ["10.0.0.1"] } },
    { mode: "bridge", path: "/run/netns/theirs" },
    { mode: "bridge", rates: { inBytesPerSecond: 1 } },
    { mode: "none", rates: { inBytesPerSecond: 1_000_000 } },
  ] as const) {
    await assert.rejects(world.core.sandboxes.create({ image: "busybox", network: wrong }), {
      reason: "INVALID_ARGUMENT",
    });
  }
});
