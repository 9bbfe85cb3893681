import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseAddress, chooseRange, hostRules } from "./bridge.ts";
import type { OwnNetworkState } from "./state.ts";

const range = { address: 0x0a580000, prefix: 16 };
const host = { name: "bj-0123abcd", range };

test("bridge: a range that the host has no route into", () => {
  assert.deepEqual(chooseRange([]), range);
  // The default route is everybody's.
  assert.deepEqual(chooseRange([{ address: 0, prefix: 0 }]), range);
  const taken = { address: 0x0a580100, prefix: 24 };
  assert.deepEqual(chooseRange([taken]), { address: 0x0a590000, prefix: 16 });
  assert.throws(() => chooseRange([{ address: 0x0a000000, prefix: 8 }]), { reason: "NO_FREE_ADDRESS" });
});

test("bridge: addresses in turn, none twice, and an end of them", () => {
  assert.equal(chooseAddress(range, new Set(), undefined), "10.88.0.2");
  // One that was just given back is the last to be given again.
  assert.equal(chooseAddress(range, new Set(), "10.88.0.2"), "10.88.0.3");
  assert.equal(chooseAddress(range, new Set(["10.88.0.3"]), "10.88.0.2"), "10.88.0.4");
  assert.equal(chooseAddress(range, new Set(), "10.88.255.254"), "10.88.0.2");
  const small = { address: 0x0a580000, prefix: 29 };
  const all = new Set(["10.88.0.2", "10.88.0.3", "10.88.0.4", "10.88.0.5", "10.88.0.6"]);
  assert.throws(() => chooseAddress(small, all, undefined), { reason: "NO_FREE_ADDRESS" });
  assert.equal(chooseAddress(small, new Set([...all].slice(0, 4)), "10.88.0.2"), "10.88.0.6");
});

test("bridge: the host's rules are a whole, and go as one", () => {
  assert.equal(hostRules(host, []), "table inet bj_0123abcd { }\ndelete table inet bj_0123abcd\n");
  const state: OwnNetworkState = {
    mode: "bridge",
    namespace: "belljar-0123abcd-00c0ffee0001",
    macAddress: "02:00:00:00:00:01",
    address: "10.88.0.2",
    mtu: 1500,
    nameServer: "192.0.2.53",
    allowed: ["192.0.2.1/32"],
    ports: [
      { hostAddress: "0.0.0.0", hostPort: 8080, containerPort: 80, protocol: "tcp" },
      { hostAddress: "127.0.0.1", hostPort: 53, containerPort: 53, protocol: "udp" },
    ],
  };
  const lines = hostRules(host, [state]).split("\n");
  for (const line of [
    "fib daddr type local tcp dport 8080 dnat ip to 10.88.0.2",
    "ip daddr 127.0.0.1 udp dport 53 dnat ip to 10.88.0.2",
    'oifname "bj-0123abcd" drop',
    'iifname "bj-0123abcd" drop',
    "ip saddr 10.88.0.2 ip daddr 192.0.2.1/32 accept",
  ]) {
    assert.ok(lines.includes(line), line);
  }
  // One that is linked to the other may go there; not back.
  const links = [{ sandbox: "00c0ffee0001", alias: "db" }];
  const linked = { ...state, namespace: "belljar-0123abcd-00c0ffee0002", address: "10.88.0.3", ports: [], links };
  const both = hostRules(host, [state, linked]).split("\n");
  const way = 'iifname "bj-0123abcd" oifname "bj-0123abcd" ip saddr 10.88.0.3 ip daddr 10.88.0.2 accept';
  assert.ok(both.indexOf(way) < both.indexOf('oifname "bj-0123abcd" drop') && both.includes(way));
  assert.equal(both.filter((line) => /ip saddr .* ip daddr 10\.88\.0\.\d accept/.test(line)).length, 1);
});
