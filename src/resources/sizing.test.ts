import assert from "node:assert/strict";
import { test } from "node:test";
import { type ContainerNeeds, GUEST_OWN_MIB, parseCpuset, type SizingRules, sizeVm } from "./sizing.ts";

const MIB = 1024 * 1024;
const base = { memoryMib: 256, cpus: 1 };
const max = { memoryMib: 8_192, cpus: 8 };
const byLimits: SizingRules = { memory: "limits", cpus: "limits" };
const fixed: SizingRules = { memory: "fixed", cpus: "fixed" };

function size(rules: SizingRules, ...containers: ContainerNeeds[]): string {
  const { memoryMib, cpus } = sizeVm({ rules, base, max, containers });
  return `${memoryMib} MiB, ${cpus}`;
}

test("a VM that nobody sized is the usual one and the sum of the limits", () => {
  assert.equal(size(byLimits), "256 MiB, 1");
  assert.equal(size(byLimits, {}, {}), "256 MiB, 1");
  assert.equal(size(byLimits, { memoryBytes: 512 * MIB }, { memoryBytes: 100 * MIB + 1 }), "869 MiB, 1");
  assert.equal(size(byLimits, { cpus: 0.5 }), "256 MiB, 2");
  assert.equal(size(byLimits, { cpus: 0.5 }, { cpus: 0.5 }), "256 MiB, 2");
  assert.equal(size(byLimits, ...Array.from({ length: 10 }, () => ({ cpus: 0.1 }))), "256 MiB, 2");
});

test("sets of CPUs count where there is no quota, each CPU once, and each CPU named is there", () => {
  assert.equal(size(byLimits, { cpuset: "0-1" }, { cpuset: "1" }), "256 MiB, 3");
  assert.equal(size(byLimits, { cpuset: "0-3", cpus: 1 }), "256 MiB, 4");
  assert.equal(size(fixed, { cpuset: "2" }), "256 MiB, 3");
  assert.equal(size(fixed, { cpuset: "" }), "256 MiB, 1");
});

test("a VM that somebody sized stays so, but for a container that would not fit", () => {
  assert.equal(size(fixed, { memoryBytes: 200 * MIB }, { memoryBytes: 200 * MIB }), "256 MiB, 1");
  assert.equal(size(fixed, { memoryBytes: 256 * MIB, cpus: 1 }), "256 MiB, 1");
  assert.equal(size(fixed, { memoryBytes: 512 * MIB, cpus: 1.5 }), `${512 + 8 + GUEST_OWN_MIB} MiB, 2`);
});

test("nothing makes it larger than it may be, nor smaller than what was asked for", () => {
  assert.equal(size(byLimits, { memoryBytes: 9_000 * MIB, cpus: 20 }), "8192 MiB, 8");
  assert.equal(size(fixed, { memoryBytes: 8_192 * MIB }), "8192 MiB, 1");
  const small = { rules: byLimits, base, max: { memoryMib: 128, cpus: 1 }, containers: [{ memoryBytes: MIB }] };
  assert.deepEqual(sizeVm(small), base);
});

test("lists of CPUs are read as the kernel writes them", () => {
  assert.deepEqual(parseCpuset("0-2,4"), [0, 1, 2, 4]);
  assert.deepEqual(parseCpuset(" \n"), []);
  for (const wrong of ["a", "2-1", "1-", "-1", "1,,2", "9999", "0-99999"]) assert.equal(parseCpuset(wrong), undefined);
});
