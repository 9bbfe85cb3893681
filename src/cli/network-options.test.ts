import assert from "node:assert/strict";
import { test } from "node:test";
import { parseRoute } from "./commands/network.ts";
import { networkConfig } from "./network-options.ts";

test("network options: kinds, namespaces by path and by name, speeds and links", () => {
  assert.equal(networkConfig({}), undefined);
  const of = (network: string): unknown => {
    const { mode, path } = networkConfig({ network }) ?? {};
    return path === undefined ? mode : { mode, path };
  };
  assert.equal(of("bridge"), "bridge");
  assert.deepEqual(of("netns:blue"), { mode: "netns", path: "/run/netns/blue" });
  assert.deepEqual(of("netns:/proc/7/ns/net"), { mode: "netns", path: "/proc/7/ns/net" });
  for (const wrong of ["netns", "netns:", "host", ""]) assert.throws(() => of(wrong), { reason: "INVALID_ARGUMENT" });
  const { rates, links } = networkConfig({ network: "bridge", netRateIn: "1m", link: ["db", "db:store"] }) ?? {};
  assert.deepEqual([rates?.inBytesPerSecond, rates?.outBytesPerSecond], [1_048_576, undefined]);
  assert.deepEqual(links, ["db", "db:store"]);
});

test("network options: routes as text", () => {
  assert.deepEqual(parseRoute("default@10.0.0.1%eth0"), {
    destination: "default",
    gateway: "10.0.0.1",
    interfaceName: "eth0",
  });
  assert.deepEqual(parseRoute("10.1.0.0/16%eth1"), { destination: "10.1.0.0/16", interfaceName: "eth1" });
  for (const wrong of ["", "default", "@10.0.0.1%eth0", "default@%eth0"]) {
    assert.throws(() => parseRoute(wrong), { reason: "INVALID_ARGUMENT" });
  }
});
