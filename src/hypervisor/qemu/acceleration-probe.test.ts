/** The probe against guests that do what they are told. The real thing is in test/vm/qemu.test.ts. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, test } from "../../../test/support/harness.ts";
import { MemoryHypervisor, type MemoryVm } from "../../../test/support/memory-hypervisor.ts";
import { BelljarError, silentLog } from "../../base/index.ts";
import type { AccelerationProbe } from "../interface.ts";
import { createAccelerationProbe } from "./acceleration-probe.ts";

interface Scene {
  readonly hypervisor: MemoryHypervisor;
  readonly probe: AccelerationProbe;
  readonly memory: string;
  starts(): number;
}

async function scene(t: TestScope, guest: (vm: MemoryVm) => void, kvm = true): Promise<Scene> {
  const hypervisor = new MemoryHypervisor();
  hypervisor.onStart = guest;
  const kvmDevice = join(t.dir, "kvm");
  if (kvm) await writeFile(kvmDevice, "");
  const cacheDir = join(t.dir, "cache");
  const probe = createAccelerationProbe({
    hypervisor,
    cacheDir,
    kvmDevice,
    boot: async () => ({ kernelPath: "/kernel", kernelArguments: ["never used"] }),
    log: silentLog,
    firstWordTimeoutMs: 200,
    endTimeoutMs: 400,
  });
  t.after(() => assert.deepEqual(hypervisor.live, []));
  const starts = (): number => hypervisor.calls.filter((call) => call.startsWith("start")).length;
  return { hypervisor, probe, memory: join(cacheDir, "acceleration.json"), starts };
}

const panics = (vm: MemoryVm): void => {
  vm.console = "Linux version 6\nKernel panic - not syncing: no root\n";
  vm.end({ cause: "guest", panic: true, detail: "Kernel panic - not syncing: no root" });
};

test("a kernel that comes up to its panic proves KVM, once", async (t) => {
  const { hypervisor, probe, starts } = await scene(t, panics);
  const first = await probe.resolve("auto");
  assert.deepEqual([first.acceleration, first.remembered], ["kvm", false]);
  const [vm] = hypervisor.vms.values();
  assert.equal(vm?.config.acceleration, "kvm");
  assert.equal(vm?.config.boot.initrdPath, undefined);
  assert.ok(vm?.config.boot.kernelArguments.includes("panic=-1"));
  assert.deepEqual(await probe.resolve("kvm"), { ...first, remembered: true });
  assert.equal(starts(), 1);
});

for (const [what, guest] of Object.entries<(vm: MemoryVm) => void>({
  "says nothing": () => {},
  "stops in the middle": (vm) => {
    vm.console = "Linux version 6\n";
  },
  "resets at once": (vm) => vm.end({ cause: "guest", panic: false, detail: "the guest reset itself" }),
  "takes its VMM down": (vm) => vm.end({ cause: "died", detail: "QEMU was ended by SIGABRT; an assertion" }),
})) {
  test(`a guest that ${what} means TCG, and \`kvm\` is refused`, async (t) => {
    const { probe } = await scene(t, guest);
    const finding = await probe.resolve("auto");
    assert.equal(finding.acceleration, "tcg");
    assert.match(finding.explanation, /under KVM/);
    await assert.rejects(probe.resolve("kvm"), { reason: "ACCELERATION_UNAVAILABLE" });
  });
}

test("a VMM that does not start under KVM means TCG, remembered", async (t) => {
  const { hypervisor, probe, starts } = await scene(t, panics);
  hypervisor.fail("start", new BelljarError("VMM_START_FAILED", "assertion failed"));
  assert.equal((await probe.resolve("auto")).explanation, "assertion failed");
  assert.equal((await probe.resolve("auto")).remembered, true);
  assert.equal(starts(), 1);
});

test("a fault that is not KVM's is thrown and not remembered", async (t) => {
  const { hypervisor, probe } = await scene(t, panics);
  hypervisor.fail("start", new BelljarError("NOT_ENOUGH_MEMORY", "no memory"));
  await assert.rejects(probe.resolve("auto"), { reason: "NOT_ENOUGH_MEMORY" });
  assert.equal((await probe.resolve("auto")).acceleration, "kvm");
});

test("a probe that was killed from outside is not remembered", async (t) => {
  const { hypervisor, probe } = await scene(t, (vm) => vm.end({ cause: "died", detail: "QEMU was ended by SIGKILL" }));
  assert.equal((await probe.resolve("auto")).acceleration, "tcg");
  hypervisor.onStart = panics;
  assert.equal((await probe.resolve("auto")).acceleration, "kvm");
});

test("no /dev/kvm: no guest is tried", async (t) => {
  const { probe, starts } = await scene(t, panics, false);
  const finding = await probe.resolve("auto");
  assert.equal(finding.acceleration, "tcg");
  assert.match(finding.explanation, /^this host has no /);
  assert.equal(starts(), 0);
});

test("tcg is taken at its word", async (t) => {
  const { probe, starts } = await scene(t, panics);
  assert.equal((await probe.resolve("tcg")).acceleration, "tcg");
  assert.equal(starts(), 0);
});

test("a probe can be cancelled; it leaves no VM and no answer", async (t) => {
  const controller = new AbortController();
  const { probe, memory } = await scene(t, () => controller.abort());
  await assert.rejects(probe.resolve("auto", controller.signal), { reason: "CANCELLED" });
  await assert.rejects(readFile(memory), { code: "ENOENT" });
});

test("an answer found elsewhere, before a restart, or damaged is not believed", async (t) => {
  const { hypervisor, probe, memory, starts } = await scene(t, panics);
  hypervisor.fail("start", new BelljarError("VMM_START_FAILED", "assertion failed"));
  await probe.resolve("auto");
  const kept = JSON.parse(await readFile(memory, "utf8"));
  const changes = [
    JSON.stringify({ ...kept, bootId: "another" }),
    JSON.stringify({ ...kept, surroundings: { ...kept.surroundings, hostKernel: "another" } }),
    JSON.stringify({ ...kept, works: "yes" }),
    "{",
  ];
  for (const [index, change] of changes.entries()) {
    await writeFile(memory, change);
    assert.equal((await probe.resolve("auto")).remembered, false, change);
    assert.equal(starts(), index + 2);
  }
});

test("what a killed prober left is removed; a live one's is not", async (t) => {
  const { probe } = await scene(t, panics);
  const tmp = process.env["TMPDIR"] ?? "";
  // Process 1 is alive, but was not started at this time.
  for (const name of ["belljar-probe-999999999-5-0123456789ab", "belljar-probe-1-999999999-0123456789ab"]) {
    await mkdir(join(tmp, name));
    await writeFile(join(tmp, name, "qmp.sock"), "");
  }
  await probe.resolve("auto");
  assert.deepEqual(await readdir(tmp), []);
});
