import assert from "node:assert/strict";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import type { NetworkInterfaceInfo } from "node:os";
import { join } from "node:path";
import { networkLimits } from "../src/base/limits.ts";
import { tempDir, test } from "../test/support/harness.ts";
import { plannedInterfaces, readInterfaces, readRoutes } from "./network-table.ts";

test("interfaces are all but loopback, as the kernel has them", async (t) => {
  const sysDir = await tempDir(t);
  for (const [name, flags] of [
    ["lo", "0x9"],
    ["eth0", "0x1003"],
    ["net1", "0x1002"],
  ] as const) {
    const dir = join(sysDir, "class/net", name);
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, "flags"), `${flags}\n`);
    await writeFile(join(dir, "mtu"), "1400\n");
    await writeFile(join(dir, "address"), "02:00:00:00:00:01\n");
  }
  const deps = { sysDir, procDir: "/proc", addressesOf: () => ["10.0.0.2/24"] };
  const common = { macAddress: "02:00:00:00:00:01", mtu: 1400, addresses: ["10.0.0.2/24"] };
  const found = (await readInterfaces(deps)).sort((one, other) => one.name.localeCompare(other.name));
  assert.deepEqual(found, [
    { name: "eth0", up: true, ...common },
    { name: "net1", up: false, ...common },
  ]);
});

test("interfaces that are devices are told to a copy's host with all of their addresses, or none at all are", async (t) => {
  const sysDir = await tempDir(t);
  const mac = "02:00:00:00:00:01";
  const info = (cidr: string, internal = false): NetworkInterfaceInfo => {
    const [address = ""] = cidr.split("/");
    return { family: "IPv4", address, netmask: "", mac, internal, cidr };
  };
  const add = async (name: string, index: number): Promise<void> => {
    const dir = join(sysDir, "class/net", name);
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, "ifindex"), `${index}\n`);
    await writeFile(join(dir, "mtu"), "1400\n");
    if (name !== "docker0") await symlink("..", join(dir, "device"));
  };
  for (const [at, name] of ["lo", "eth0", "docker0"].entries()) await add(name, at + 1);
  const present = {
    lo: [info("127.0.0.1/8", true)],
    eth0: [info("10.0.0.2/24"), info("fe80::1/64")],
    docker0: [info("172.17.0.1/16")],
    "eth0:1": [info("10.0.0.3/24")],
  };
  const addresses = ["10.0.0.2/24", "fe80::1/64", "10.0.0.3/24"];
  assert.deepEqual(plannedInterfaces(sysDir, present), [
    { index: 2, name: "eth0", macAddress: mac, mtu: 1400, addresses },
  ]);
  // One that is just being unplugged.
  await rm(join(sysDir, "class/net/eth0/ifindex"));
  assert.equal(plannedInterfaces(sysDir, present)?.[0]?.index, 0);
  const tooMany = Array.from({ length: networkLimits.presentAddressesMax }, () => info("10.0.0.4/24"));
  assert.equal(plannedInterfaces(sysDir, { ...present, "eth0:2": tooMany }), undefined);
  const names = Array.from({ length: networkLimits.interfacesMax + 1 }, (_, at) => `net${at}`);
  for (const name of names) await add(name, 9);
  const many = Object.fromEntries(names.map((name) => [name, [info("10.0.0.2/24")]]));
  assert.equal(plannedInterfaces(sysDir, many), undefined);
  assert.equal(plannedInterfaces(sysDir, { ...many, net0: [] })?.length, networkLimits.interfacesMax);
});

test("routes of both families, without those that are the kernel's own", async (t) => {
  const procDir = await tempDir(t);
  await mkdir(join(procDir, "net"));
  await writeFile(
    join(procDir, "net/route"),
    [
      "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
      "eth0\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0",
      "eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",
      "*\t0000000A\t00000000\t0201\t0\t0\t0\t000000FF\t0\t0\t0",
      "",
    ].join("\n"),
  );
  const zeros = "0".repeat(32);
  await writeFile(
    join(procDir, "net/ipv6_route"),
    [
      `${zeros} 00 ${zeros} 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003     eth0`,
      `20010db8000000000000000000000000 40 ${zeros} 00 ${zeros} 00000100 00000001 00000000 00000001     eth0`,
      `fe800000000000000000000000000000 40 ${zeros} 00 ${zeros} 00000100 00000001 00000000 00000001     eth0`,
      `20010db8000000000000000000000007 80 ${zeros} 00 ${zeros} 00000000 00000002 00000000 80200001     eth0`,
      `${zeros} 00 ${zeros} 00 ${zeros} ffffffff 00000001 00000000 00200200       lo`,
      "",
    ].join("\n"),
  );
  assert.deepEqual(await readRoutes({ procDir }), [
    { interfaceName: "eth0", destination: "default", gateway: "10.77.0.1" },
    { interfaceName: "eth0", destination: "10.77.0.0/24", gateway: "" },
    { interfaceName: "eth0", destination: "default", gateway: "2001:db8::1" },
    { interfaceName: "eth0", destination: "2001:db8::/64", gateway: "" },
  ]);
});
