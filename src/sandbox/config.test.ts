import assert from "node:assert/strict";
import { test } from "node:test";
import { sandboxLimits } from "../base/index.ts";
import { dnsLines, type SandboxConfig, settleSandboxConfig } from "./config.ts";

const ID = "0123456789ab";

function refused(config: SandboxConfig, message: RegExp): void {
  assert.throws(() => settleSandboxConfig(config, ID), { reason: "INVALID_ARGUMENT", message });
}

test("config: everything has a default, and the id stands in for names", () => {
  const { name, annotations, settings } = settleSandboxConfig({}, ID);
  assert.deepEqual([name, annotations, settings.hostname], [ID, {}, ID]);
  assert.deepEqual([settings.memoryMib, settings.cpus], [sandboxLimits.memoryDefaultMib, 1]);
  assert.deepEqual(dnsLines(settings), []);
});

test("config: an option goes before its annotation, an annotation before the default", () => {
  const annotations = { "io.belljar.sandbox.memory-mib": "512", "io.belljar.sandbox.cpus": "2" };
  const { settings } = settleSandboxConfig({ annotations, cpus: 3 }, ID);
  assert.deepEqual([settings.memoryMib, settings.cpus], [512, 3]);
});

test("config: figures out of range are refused with their range", () => {
  const { memoryMinMib, memoryMaxMib, cpusMax, sharedMemoryMaxBytes } = sandboxLimits;
  for (const memoryMib of [memoryMinMib - 1, memoryMaxMib + 1, 200.5, Number.NaN]) refused({ memoryMib }, /^memory of/);
  for (const cpus of [0, cpusMax + 1, 1.5]) refused({ cpus }, /^cpus of/);
  for (const sharedMemoryBytes of [0, sharedMemoryMaxBytes + 1]) refused({ sharedMemoryBytes }, /^shared memory of/);
  for (const memoryMib of [memoryMinMib, memoryMaxMib]) settleSandboxConfig({ memoryMib }, ID);
});

test("config: host names", () => {
  for (const hostname of ["web", "a", "web-1.example.com", "9", "x".repeat(63)]) {
    assert.equal(settleSandboxConfig({ hostname }, ID).settings.hostname, hostname);
  }
  for (const hostname of ["", "-web", "web-", "a..b", ".a", "a.", "a_b", "a b", "a\n", "ü", "x".repeat(64)]) {
    refused({ hostname }, /is not a host name/);
  }
});

test("config: DNS settings become lines, and no word can make one of its own", () => {
  const dns = {
    servers: ["192.0.2.1", "2001:db8::1"],
    search: ["example.com", "_tcp.example"],
    options: ["ndots:2", "rotate"],
  };
  assert.deepEqual(dnsLines(settleSandboxConfig({ dns }, ID).settings), [
    "nameserver 192.0.2.1",
    "nameserver 2001:db8::1",
    "search example.com _tcp.example",
    "options ndots:2 rotate",
  ]);
  for (const word of ["", "192.0.2.256", "dns.example", "192.0.2.1\nsearch evil"]) {
    refused({ dns: { servers: [word] } }, /is not a DNS server/);
  }
  for (const word of ["", "a b", "a\n", "x".repeat(254)])
    refused({ dns: { search: [word] } }, /not a DNS search domain/);
  for (const word of ["", "Rotate", "ndots:x", "ndots:2 rotate"]) {
    refused({ dns: { options: [word] } }, /is not a DNS option/);
  }
  const servers = Array.from({ length: sandboxLimits.dnsEntriesMax + 1 }, () => "192.0.2.1");
  refused({ dns: { servers } }, /the number of DNS servers of 17 entries/);
});
