import assert from "node:assert/strict";
import { test } from "node:test";
import { BelljarError } from "../base/index.ts";
import type { Capability } from "./capability.ts";
import type { HostFacts } from "./host-facts.ts";
import { hostTools } from "./host-tools.ts";
import { type InspectHostDeps, inspectHost } from "./inspect-host.ts";

/** A host that has nothing of what Belljar looks for. */
const barren: HostFacts = {
  platform: "freebsd",
  architecture: "arm64",
  nodeVersion: "20.1.0",
  kernelRelease: "5.10.0",
  userId: 1000,
  searchPath: "/nowhere",
  readFile: async (path) => (path === "/proc/meminfo" ? "MemAvailable:  1000 kB\n" : undefined),
  exists: async () => false,
  freeBytes: async () => 2 ** 20,
};

const failing = async (): Promise<never> => {
  throw new BelljarError("INTERNAL", "asked in vain");
};

const inspect = (host: HostFacts, deps: Partial<InspectHostDeps> = {}): Promise<Capability[]> =>
  inspectHost({ hypervisor: failing, acceleration: failing, guestImage: failing, rootDir: "/r", host, ...deps });

/** Each has a fallback, or is looked at for information only. */
const NEVER_MISSING = ["userfaultfd", "IPv4 forwarding"];

test("each thing that a host lacks is named, once, with its cost and its remedy", async () => {
  const found = await inspect(barren);
  assert.equal(new Set(found.map(({ name }) => name)).size, found.length);
  for (const { program } of hostTools.filter(({ path }) => path === undefined)) {
    assert.equal(found.find(({ name }) => name === program)?.status, "no", program);
  }
  for (const { name, status, detail, cost, remedy } of found) {
    if (NEVER_MISSING.includes(name) || name === "virtiofsd") continue;
    assert.ok(status === "no" || status === "degraded", `${name}: ${status}`);
    for (const text of [detail, cost, remedy]) assert.ok(text !== undefined && text !== "", name);
  }
});

test("what cannot be looked into is missing; who gives up is not answered", async () => {
  const found = await inspect({ ...barren, freeBytes: async () => undefined });
  assert.equal(found.find(({ name }) => name === "disk space")?.status, "no");
  await assert.rejects(inspect(barren, { signal: AbortSignal.abort() }), { reason: "CANCELLED" });
});
