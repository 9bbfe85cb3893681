import assert from "node:assert/strict";
import { test } from "node:test";
import { withLimits } from "./cgroup-limits.ts";
import {
  mountable,
  withArguments,
  withMountInstead,
  withMounts,
  withNamespace,
  withReadonlyPath,
} from "./spec-changes.ts";

const bind = (destination: string) => ({ source: "/s", destination, options: ["ro"] });
const made = (destination: string) => ({ destination, type: "bind", source: "/s", options: ["bind", "ro"] });

test("mounts are added where the configuration has none, or put in the place of its own", () => {
  const spec = { mounts: [{ destination: "/etc/hosts/", type: "tmpfs" }, { destination: "/dev/shm" }] };
  assert.deepEqual(withMounts(spec, [bind("/etc/hosts"), bind("/etc/hostname")])["mounts"], [
    ...spec.mounts,
    made("/etc/hostname"),
  ]);
  assert.deepEqual(withMountInstead(spec, bind("/dev/shm"))["mounts"], [spec.mounts[0], made("/dev/shm")]);
  assert.deepEqual(withMountInstead({}, bind("/dev/shm"))["mounts"], [made("/dev/shm")]);
  assert.throws(() => withMounts({ mounts: [7] }, []), { reason: "INVALID_ARGUMENT" });
});

test("mounts that the container has no place for are left out", async () => {
  const wanted = [bind("/run/belljar"), bind("/etc/machine-id"), bind("/proc/sys/x")];
  const left = async (mounts: readonly object[], canHold: boolean): Promise<readonly string[]> =>
    (await mountable({ mounts }, wanted, async () => canHold)).map(({ destination }) => destination);
  const proc = { destination: "/proc", type: "proc" };
  assert.deepEqual(await left([proc], true), ["/run/belljar", "/etc/machine-id", "/proc/sys/x"]);
  assert.deepEqual(await left([], true), ["/run/belljar", "/etc/machine-id"]);
  // A root that is read-only, with a /run that is not.
  assert.deepEqual(await left([proc, { destination: "/run/", type: "tmpfs" }], false), ["/run/belljar", "/proc/sys/x"]);
  assert.deepEqual(await left([{ destination: "/etc", type: "bind" }], true), ["/run/belljar"]);
  assert.deepEqual(await left([{ destination: "/proc", type: "bind" }], true), ["/run/belljar", "/etc/machine-id"]);
});

test("a path that cannot be written to is added to the others", () => {
  const spec = { linux: { readonlyPaths: ["/a"], x: 1 } };
  assert.deepEqual(withReadonlyPath(spec, "/b")["linux"], { readonlyPaths: ["/a", "/b"], x: 1 });
  assert.deepEqual(withReadonlyPath({}, "/b")["linux"], { readonlyPaths: ["/b"] });
});

test("a namespace is joined in the place of a new one, and a command replaced", () => {
  const spec = { linux: { namespaces: [{ type: "pid" }, { type: "ipc" }], x: 1 }, process: { args: ["a"], cwd: "/" } };
  assert.deepEqual(withNamespace(spec, "pid", "/proc/7/ns/pid")["linux"], {
    namespaces: [{ type: "ipc" }, { type: "pid", path: "/proc/7/ns/pid" }],
    x: 1,
  });
  assert.deepEqual(withArguments(spec, ["b"])["process"], { args: ["b"], cwd: "/" });
});

test("limits that change before the start are in the configuration, whatever form the old ones had", () => {
  const resources = {
    devices: [],
    memory: { limit: 1, swap: 2 },
    cpu: { shares: 5, quota: 7 },
    pids: { limit: 3 },
    unified: { "memory.max": "1", "cpu.max": "1 2", "pids.max": "3", "memory.high": "9" },
  };
  const spec = { linux: { resources, x: 1 } };
  assert.deepEqual(withLimits(spec, {}), spec);
  const changes = { memoryBytes: 64n, cpuQuotaUs: 5_000n, cpuPeriodUs: 10_000n, cpuWeight: 9, cpuset: "0", pids: 0 };
  assert.deepEqual(withLimits(spec, changes)["linux"], {
    x: 1,
    resources: {
      devices: [],
      memory: { limit: 64, swap: 2 },
      cpu: { quota: 5000, period: 10000, cpus: "0" },
      unified: { "memory.high": "9", "cpu.weight": "9" },
    },
  });
  const unlimited = withLimits(spec, { memoryBytes: 0n, cpuQuotaUs: 0n, pids: 0 });
  assert.deepEqual(unlimited["linux"], {
    x: 1,
    resources: { devices: [], cpu: { shares: 5 }, unified: { "memory.high": "9" } },
  });
  assert.deepEqual(withLimits({}, { pids: 4 }), { linux: { resources: { pids: { limit: 4 } } } });
});
