import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tempDir, test } from "../test/support/harness.ts";
import { configureNetwork, type NetworkRequest } from "./network.ts";

const PATH = ["0000:00:10.0", "00.0"];
const request: NetworkRequest = {
  interfaces: [
    { name: "eth0", pci: { path: PATH }, macAddress: "02:00:00:00:00:01", mtu: 1500, addresses: ["10.0.2.15/32"] },
  ],
  routes: [
    { interfaceName: "eth0", destination: "169.254.1.1/32", gateway: "" },
    { interfaceName: "eth0", destination: "default", gateway: "169.254.1.1" },
  ],
  neighbours: [{ interfaceName: "eth0", address: "169.254.1.1", macAddress: "02:62:6a:00:00:01" }],
};

async function guest(dir: string, name: string, flags: string, address: string): Promise<string[][]> {
  const device = join(dir, "devices/pci0000:00/0000:00:10.0/0000:01:00.0/virtio5/net", name);
  await mkdir(device, { recursive: true });
  await mkdir(join(dir, "class/net", name), { recursive: true });
  await writeFile(join(dir, "class/net", name, "flags"), flags);
  await writeFile(join(dir, "class/net", name, "address"), address);
  return [];
}

test("network: a new interface gets its addresses, routes and neighbours, in one shell", async (t) => {
  const sysDir = await tempDir(t);
  const ran = await guest(sysDir, "eth0", "0x1002\n", "02:00:00:00:00:01\n");
  await configureNetwork(
    { sysDir, addressesOf: () => [], runTool: async (command, args) => void ran.push([command, ...args]) },
    request,
  );
  assert.deepEqual(ran, [
    [
      "busybox",
      "sh",
      "-ec",
      [
        "ip link set eth0 mtu 1500 up",
        "ip addr add 10.0.2.15/32 dev eth0",
        "ip route replace 169.254.1.1/32 dev eth0",
        "ip route replace default via 169.254.1.1 dev eth0",
        "arp -i eth0 -s 169.254.1.1 02:62:6a:00:00:01",
      ].join("\n"),
    ],
  ]);
});

test("network: of a copied guest nothing is left of what the interface had before", async (t) => {
  const sysDir = await tempDir(t);
  const ran = await guest(sysDir, "eth1", "0x1003\n", "02:00:00:00:00:99\n");
  const addressesOf = (): readonly string[] => ["10.0.2.9/32"];
  await configureNetwork({ sysDir, addressesOf, runTool: async (_, args) => void ran.push([...args]) }, request);
  assert.deepEqual(ran[0]?.at(-1)?.split("\n").slice(0, 6), [
    "ip link set eth1 address 02:00:00:00:00:01",
    "ip addr flush dev eth1",
    "ip neigh flush dev eth1 || true",
    "ip link set eth1 down",
    "ip link set eth1 name eth0",
    "ip link set eth0 mtu 1500 up",
  ]);
});

test("network: a copied guest whose address is as before gets another hardware address, and nothing else", async (t) => {
  const sysDir = await tempDir(t);
  const ran = await guest(sysDir, "eth0", "0x1003\n", "02:00:00:00:00:99\n");
  const addressesOf = (): readonly string[] => ["10.0.2.15/32"];
  const deps = { sysDir, addressesOf, runTool: async (_: string, args: readonly string[]) => void ran.push([...args]) };
  await configureNetwork(deps, request);
  assert.deepEqual(ran, [["sh", "-ec", "ip link set eth0 address 02:00:00:00:00:01"]]);
  await writeFile(join(sysDir, "class/net/eth0/address"), "02:00:00:00:00:01");
  await configureNetwork(deps, request);
  assert.equal(ran.length, 1);
});

test("network: what is no name, address or route never reaches the shell", async (t) => {
  const sysDir = await tempDir(t);
  const ran = await guest(sysDir, "eth0", "0x1002\n", "02:00:00:00:00:01\n");
  const deps = { sysDir, runTool: async () => void ran.push([]) };
  const [one] = request.interfaces;
  assert.ok(one !== undefined);
  const wrong: readonly Partial<NetworkRequest>[] = [
    { interfaces: [{ ...one, name: "x; reboot" }] },
    { interfaces: [{ ...one, macAddress: "$(reboot)" }] },
    { interfaces: [{ ...one, mtu: 1.5 }] },
    { interfaces: [{ ...one, addresses: ["10.0.0.1"] }] },
    { interfaces: Array.from({ length: 9 }, () => one) },
    { routes: [{ interfaceName: "eth0", destination: "all`", gateway: "" }] },
    { routes: [{ interfaceName: "eth0", destination: "default", gateway: "a b" }] },
    { neighbours: [{ interfaceName: "eth0", address: "10.0.0.1", macAddress: "02" }] },
  ];
  for (const change of wrong) {
    await assert.rejects(configureNetwork(deps, { ...request, ...change }), { reason: "INVALID_ARGUMENT" });
  }
  assert.deepEqual(ran, []);
});
