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
        "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6",
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
  const runTool = async (_: string, args: readonly string[]) => void ran.push([...args]);
  const disconnect = async (addresses: readonly string[]) => void ran.push(["disconnect", ...addresses]);
  await configureNetwork({ sysDir, addressesOf, runTool, disconnect }, request);
  assert.deepEqual(ran[1], ["disconnect", "10.0.2.9"]);
  assert.deepEqual(ran[0]?.at(-1)?.split("\n").slice(0, 7), [
    "ip link set eth1 address 02:00:00:00:00:01",
    "ip addr flush dev eth1",
    "ip neigh flush dev eth1 || true",
    "ip link set eth1 down",
    "ip link set eth1 name eth0",
    "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6",
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
  // Somebody has begun, and it is not known how far that came.
  await configureNetwork(deps, { ...request, setAgain: true });
  assert.deepEqual(ran.at(-1)?.at(-1)?.split("\n"), [
    "ip route replace 169.254.1.1/32 dev eth0",
    "ip route replace default via 169.254.1.1 dev eth0",
    "arp -i eth0 -s 169.254.1.1 02:62:6a:00:00:01",
  ]);
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

test("network: routes that are replaced leave none behind but the kernel's own", async (t) => {
  const sysDir = await tempDir(t);
  const ran = await guest(sysDir, "eth0", "0x1003\n", "02:00:00:00:00:01\n");
  await mkdir(join(sysDir, "net"));
  await writeFile(
    join(sysDir, "net/route"),
    [
      "eth0\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0",
      "eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",
      "eth0\t00004E0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",
      "eth9\t00004F0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",
    ].join("\n"),
  );
  const [one] = request.interfaces;
  assert.ok(one !== undefined);
  const addresses = ["10.77.0.2/24"];
  const deps = { sysDir, procDir: sysDir, addressesOf: () => addresses };
  await configureNetwork(
    { ...deps, runTool: async (_, args) => void ran.push([...args]) },
    {
      interfaces: [{ ...one, addresses }],
      routes: [{ interfaceName: "eth0", destination: "default", gateway: "10.77.0.1" }],
      neighbours: [],
      replaceRoutes: true,
    },
  );
  assert.deepEqual(ran[0]?.at(-1)?.split("\n"), [
    "ip route del 10.78.0.0/16 dev eth0 || true",
    "ip route replace default via 10.77.0.1 dev eth0",
  ]);
});

test("network: interfaces whose names are one another's are moved out of the way first", async (t) => {
  const sysDir = await tempDir(t);
  const ran: string[][] = [];
  const names = ["eth0", "eth1"] as const;
  for (const [index, name] of names.entries()) {
    const port = `devices/pci0000:00/0000:00:1${index}.0/0000:0${index}:00.0/virtio${index}/net`;
    await mkdir(join(sysDir, port, name), { recursive: true });
    await mkdir(join(sysDir, "class/net", name), { recursive: true });
    await writeFile(join(sysDir, "class/net", name, "flags"), "0x1002");
    await writeFile(join(sysDir, "class/net", name, "address"), "02:00:00:00:00:01");
  }
  const deps = {
    sysDir,
    addressesOf: () => [],
    runTool: async (_: string, args: readonly string[]) => void ran.push([...args]),
  };
  const one = (index: number, name: string) => ({
    name,
    pci: { path: [`0000:00:1${index}.0`, "00.0"] },
    macAddress: "02:00:00:00:00:01",
    mtu: 1500,
    addresses: [],
  });
  await configureNetwork(deps, { interfaces: [one(0, "eth1"), one(1, "eth0")], routes: [], neighbours: [] });
  assert.deepEqual(ran[0]?.at(-1)?.split("\n"), [
    "ip link set eth0 down",
    "ip link set eth0 name moved0",
    "ip link set eth1 down",
    "ip link set eth1 name moved1",
    "ip link set moved0 address 02:00:00:00:00:01",
    "ip link set moved0 name eth1",
    "echo 1 >/proc/sys/net/ipv6/conf/eth1/disable_ipv6",
    "ip link set eth1 mtu 1500 up",
    "ip link set moved1 address 02:00:00:00:00:01",
    "ip link set moved1 name eth0",
    "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6",
    "ip link set eth0 mtu 1500 up",
  ]);
});
