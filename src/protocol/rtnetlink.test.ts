import assert from "node:assert/strict";
import { test } from "node:test";
import { addressRequest, linkRequest, neighbourRequest, routeRequest } from "./rtnetlink.ts";

const index = 3;
const macAddress = "02:00:00:00:00:07";
const gateway = "169.254.1.1";
const LINK = "00000000 00000000 0000 0000 03000000 00000000 00000000";
const ADDRESS6 = "20010db8 00000000 00000000 00000007";
const GATEWAY6 = "20010db8 00000000 00000000 00000001";

/** What iproute2 6.1 sends (`strace -e trace=sendmsg -e write=all ip …`), but for its numbering of requests. */
const requests: readonly (readonly [command: string, request: Buffer, bytes: string])[] = [
  [
    "link set address 02:00:00:00:00:07 mtu 1400",
    linkRequest({ index, macAddress, mtu: 1400 }),
    `34000000 1000 0500 ${LINK} 0a000100 020000000007 0000 08000400 78050000`,
  ],
  [
    "link set address 02:00:00:00:00:07",
    linkRequest({ index, macAddress }),
    `2c000000 1000 0500 ${LINK} 0a000100 020000000007 0000`,
  ],
  ["link set mtu 1400", linkRequest({ index, mtu: 1400 }), `28000000 1000 0500 ${LINK} 08000400 78050000`],
  [
    "address replace 10.88.0.7/24",
    addressRequest("set", { index, address: "10.88.0.7/24" }),
    "28000000 1400 0505 00000000 00000000 02180000 03000000 08000200 0a580007 08000100 0a580007",
  ],
  [
    "address del 10.88.0.7/24",
    addressRequest("remove", { index, address: "10.88.0.7/24" }),
    "28000000 1500 0500 00000000 00000000 02180000 03000000 08000200 0a580007 08000100 0a580007",
  ],
  [
    "-6 address replace 2001:db8::7/64 nodad",
    addressRequest("set", { index, address: "2001:db8::7/64" }),
    `40000000 1400 0505 00000000 00000000 0a400200 03000000 14000200 ${ADDRESS6} 14000100 ${ADDRESS6}`,
  ],
  [
    "-6 address del 2001:db8::7/64",
    addressRequest("remove", { index, address: "2001:db8::7/64" }),
    `40000000 1500 0500 00000000 00000000 0a400000 03000000 14000200 ${ADDRESS6} 14000100 ${ADDRESS6}`,
  ],
  [
    "route replace 169.254.1.1/32",
    routeRequest("set", { index, destination: `${gateway}/32` }),
    "2c000000 1800 0505 00000000 00000000 02200000 fe03fd01 00000000 08000100 a9fe0101 08000400 03000000",
  ],
  [
    "route replace default via 169.254.1.1",
    routeRequest("set", { index, destination: "default", gateway }),
    "2c000000 1800 0505 00000000 00000000 02000000 fe030001 00000000 08000500 a9fe0101 08000400 03000000",
  ],
  [
    "route replace 10.1.0.0/16 via 169.254.1.1",
    routeRequest("set", { index, destination: "10.1.0.0/16", gateway }),
    "34000000 1800 0505 00000000 00000000 02100000 fe030001 00000000 " +
      "08000100 0a010000 08000500 a9fe0101 08000400 03000000",
  ],
  [
    "route del default via 169.254.1.1",
    routeRequest("remove", { index, destination: "default", gateway }),
    "2c000000 1900 0500 00000000 00000000 02000000 fe00ff00 00000000 08000500 a9fe0101 08000400 03000000",
  ],
  [
    "-6 route replace 2001:db8:1::/48",
    routeRequest("set", { index, destination: "2001:db8:1::/48" }),
    "38000000 1800 0505 00000000 00000000 0a300000 fe030001 00000000 " +
      "14000100 20010db8 00010000 00000000 00000000 08000400 03000000",
  ],
  [
    // `ip` says that it is ::/0, which is what the kernel takes it for when nothing is said.
    "-6 route replace default via 2001:db8::1",
    routeRequest("set", { index, destination: "default", gateway: "2001:db8::1" }),
    `38000000 1800 0505 00000000 00000000 0a000000 fe030001 00000000 14000500 ${GATEWAY6} 08000400 03000000`,
  ],
  [
    "neighbour replace 169.254.1.1 lladdr 02:62:6a:00:00:01 nud permanent",
    neighbourRequest("set", { index, address: gateway, macAddress: "02:62:6a:00:00:01" }),
    "30000000 1c00 0505 00000000 00000000 02000000 03000000 8000 0000 08000100 a9fe0101 0a000200 02626a000001 0000",
  ],
  [
    "neighbour del 169.254.1.1",
    neighbourRequest("remove", { index, address: gateway, macAddress }),
    "24000000 1d00 0500 00000000 00000000 02000000 03000000 8000 0000 08000100 a9fe0101",
  ],
];

test("requests are those of `ip`", () => {
  for (const [command, request, bytes] of requests) {
    assert.equal(request.toString("hex"), bytes.replaceAll(" ", ""), command);
  }
});

test("an address of IPv6 is the same however it is written", () => {
  const bytesOf = (address: string): string =>
    addressRequest("set", { index, address: `${address}/64` })
      .toString("hex")
      .slice(56, 88);
  assert.equal(bytesOf("::"), "0".repeat(32));
  assert.equal(bytesOf("::1"), `${"0".repeat(31)}1`);
  assert.equal(bytesOf("fe80::"), `fe80${"0".repeat(28)}`);
  assert.equal(bytesOf("1:2:3:4:5:6:7:8"), "00010002000300040005000600070008");
  assert.equal(bytesOf("::ffff:10.0.0.1"), `${"0".repeat(20)}ffff0a000001`);
  assert.equal(bytesOf("2001:DB8:0:0:0::7"), ADDRESS6.replaceAll(" ", ""));
});
