import assert from "node:assert/strict";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
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
  const add = async (name: string, index: number): Promise<string> => {
    const dir = join(sysDir, "class/net", name);
    await mkdir(dir, { recursive: true });
    const texts = { ifindex: `${index}`, address: "02:00:00:00:00:01", mtu: "1400", flags: "0x1003" };
    for (const [file, text] of Object.entries(texts)) await writeFile(join(dir, file), `${text}\n`);
    if (name.startsWith("eth")) await symlink("..", join(dir, "device"));
    return dir;
  };
  for (const [at, name] of ["lo", "eth0", "docker0"].entries()) await add(name, at + 1);
  const addresses = ["10.0.0.2/24", "fe80::1/64"];
  const first = { index: 2, name: "eth0", macAddress: "02:00:00:00:00:01", mtu: 1400, up: true, addresses };
  assert.deepEqual(
    plannedInterfaces(sysDir, () => addresses),
    [first],
  );
  // One that is just being unplugged.
  await rm(join(await add("eth1", 9), "ifindex"));
  const found = plannedInterfaces(sysDir, () => []) ?? [];
  assert.deepEqual(found.map(({ index }) => index).sort(), [0, 2]);
  const tooMany = Array.from({ length: networkLimits.presentAddressesMax + 1 }, () => "10.0.0.2/24");
  assert.equal(
    plannedInterfaces(sysDir, () => tooMany),
    undefined,
  );
  for (let at = 2; at <= networkLimits.interfacesMax; at += 1) await add(`eth${at}`, at + 10);
  assert.equal(
    plannedInterfaces(sysDir, () => []),
    undefined,
  );
  assert.deepEqual(plannedInterfaces(join(sysDir, "none")), []);
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
