import assert from "node:assert/strict";
import { test } from "node:test";
import type { Capability } from "./capability.ts";
import type { HostFacts } from "./host-facts.ts";
import {
  inspectDiskSpace,
  inspectForwarding,
  inspectKvm,
  inspectNested,
  inspectPagemapScan,
  inspectTun,
  inspectUserfaultfd,
} from "./host-kernel.ts";

function host(files: Readonly<Record<string, string>>, facts: Partial<HostFacts> = {}): HostFacts {
  return {
    platform: "linux",
    architecture: "x64",
    nodeVersion: "24.0.0",
    kernelRelease: "6.12.1-amd64",
    userId: 0,
    searchPath: "",
    readFile: async (path) => files[path],
    exists: async (path) => Object.hasOwn(files, path),
    freeBytes: async () => 10 * 2 ** 30,
    ...facts,
  };
}

const full = host({ "/dev/kvm": "", "/dev/net/tun": "", "/sys/module/kvm_amd/parameters/nested": "1\n" });
const empty = host(
  { "/proc/cpuinfo": "flags\t\t: fpu hypervisor sse\n" },
  { kernelRelease: "6.1.0-9-amd64", freeBytes: async () => 5 * 2 ** 20 },
);

const checks: readonly ((host: HostFacts) => Promise<Capability>)[] = [
  inspectKvm,
  inspectNested,
  inspectPagemapScan,
  inspectTun,
  (facts) => inspectDiskSpace(facts, "/var/lib/belljar"),
];

test("a host that has everything is told so", async () => {
  for (const check of checks) assert.equal((await check(full)).status, "yes");
  assert.equal((await inspectUserfaultfd()).status, "yes");
});

test("what a host lacks comes with its cost and a remedy, and is not required", async () => {
  const found = await Promise.all(checks.map((check) => check(empty)));
  for (const { name, status, cost, remedy } of found) {
    assert.notEqual(status, "yes", name);
    assert.ok(cost !== undefined && remedy !== undefined, name);
  }
  assert.match(found[0]?.detail ?? "", /is a VM itself/);
  assert.match(found[4]?.detail ?? "", /^5 MiB free/);
});

test("kernels are compared by number, release candidates too", async () => {
  for (const [kernelRelease, status] of [
    ["6.7.0-rc1", "yes"],
    ["7.0", "yes"],
    ["6.6.99", "degraded"],
    ["5.10.0", "degraded"],
  ] as const) {
    assert.equal((await inspectPagemapScan(host({}, { kernelRelease }))).status, status, kernelRelease);
  }
});

test("doctor: what a bridge network does to the host's forwarding is said beforehand", async () => {
  const of = (value: string): Promise<Capability> =>
    inspectForwarding(host({ "/proc/sys/net/ipv4/ip_forward": value }));
  assert.equal((await of("1\n")).detail, "on");
  assert.match((await of("0\n")).detail, /off; the first bridge network switches it on/);
});
