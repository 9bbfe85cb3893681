import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { test } from "../../test/support/harness.ts";
import { MemoryRuntime } from "../../test/support/memory-runtime.ts";
import { BelljarError } from "../base/index.ts";
import { type ContainerState, containerSandboxSchema } from "../container/index.ts";
import type { VmConfig } from "../hypervisor/interface.ts";
import type { SandboxState } from "../sandbox/index.ts";
import { StateFile } from "../store/index.ts";

const DISK = "0000:01:00.0";
const GPU = "0000:02:00.0";
const SOUND = "0000:02:00.1";
const FUNCTIONS = [
  { address: DISK, group: 6, driver: "nvme" },
  { address: GPU, group: 7, driver: "nouveau", vendor: "0x10de", class: "0x030000" },
  { address: SOUND, group: 7, driver: "snd_hda_intel", vendor: "0x10de", class: "0x040300" },
];

const open = (t: Parameters<typeof MemoryRuntime.open>[0]): Promise<MemoryRuntime> =>
  MemoryRuntime.open(t, {}, FUNCTIONS);

function hostHas(world: MemoryRuntime): boolean {
  const drivers = FUNCTIONS.map(({ address }) => world.pci.driverOf(address));
  return drivers.join() === "nvme,nouveau,snd_hda_intel";
}

async function claims(world: MemoryRuntime): Promise<string[]> {
  return (await readdir(world.deps.pci?.claimsDir ?? "").catch(() => [])).filter((name) => name !== "lock").sort();
}

/** As a killed owner leaves it. */
async function rewrite(
  world: MemoryRuntime,
  id: string,
  change: (state: SandboxState<ContainerState>) => SandboxState<ContainerState>,
): Promise<void> {
  await world.core.release();
  const file = new StateFile(world.stateFile(id), containerSandboxSchema, world.deps.disk);
  await file.read();
  await file.update(change);
}

test("pci: a device comes with its container, and goes back to the host with its end", async (t) => {
  const world = await open(t);
  const container = { pciDevices: ["02:00.1", "/dev/vfio/vfio", "/dev/vfio/7"] };
  const sandbox = await world.core.sandboxes.create({ image: "busybox", container });
  const { vm } = world.guests.guest(sandbox.id);
  assert.deepEqual(
    vm.devices.map(({ id: _, ...device }) => device),
    [{ kind: "vfio", hostAddresses: [GPU, SOUND], port: 0 }],
  );
  assert.equal(world.pci.driverOf(GPU), "vfio-pci");
  const { request } = world.guests.guest(sandbox.id).container(sandbox.main.id);
  assert.deepEqual(
    request.pciDevices?.map(({ path = [], hostAddress }) => [hostAddress, ...path]),
    [
      [GPU, "0000:00:10.0", "00.0"],
      [SOUND, "0000:00:10.0", "00.1"],
    ],
  );
  const spec: { annotations: unknown } = JSON.parse(Buffer.from(request.specJson ?? []).toString());
  assert.deepEqual(spec.annotations, { "cdi.k8s.io/vfio7": "nvidia.com/gpu=0" });
  await sandbox.stop();
  assert.ok(hostHas(world));
  assert.deepEqual(await claims(world), []);
  await sandbox.start();
  assert.equal(world.pci.driverOf(SOUND), "vfio-pci");
  await sandbox.delete({ force: true });
  assert.ok(hostHas(world));
});

test("pci: with cold plug it is there from the VM's start until its end", async (t) => {
  const world = await open(t);
  const vfio = { coldPlug: "switch-port", hotPlug: "no-port" } as const;
  const container = { pciDevices: [DISK] };
  const sandbox = await world.core.sandboxes.create({ image: "busybox", vfio, container });
  const { vm } = world.guests.guest(sandbox.id);
  const device = { kind: "vfio", hostAddresses: [DISK], behindSwitch: true } as const;
  const cold = ({ config }: { config: VmConfig }): unknown[] =>
    (config.devices ?? []).map(({ id: _, ...rest }) => rest);
  assert.deepEqual(cold(vm), [device]);
  assert.ok((vm.config.switchPorts ?? 0) > 0);
  assert.ok(!world.hypervisor.calls.some((call) => call.startsWith("plugDevice")));
  const more = sandbox.containers.create({ image: "busybox", pciDevices: ["/dev/vfio/7"] });
  await assert.rejects(more, { reason: "DEVICE_UNSUPPORTED" });
  await sandbox.main.stop();
  assert.equal(vm.devices.length, 1);
  await sandbox.main.start();
  await sandbox.stop({ force: true });
  assert.ok(hostHas(world));
  await sandbox.start();
  assert.deepEqual(cold(world.guests.guest(sandbox.id).vm), [{ ...device, port: 64 }]);
});

test("pci: two containers of a sandbox share a device, two sandboxes do not", async (t) => {
  const world = await open(t);
  const container = { pciDevices: [DISK] };
  const sandbox = await world.core.sandboxes.create({ image: "busybox", container });
  const second = await sandbox.containers.create({ image: "busybox", pciDevices: ["/dev/vfio/6"] });
  await second.start();
  const other = world.core.sandboxes.create({ image: "busybox", container });
  await assert.rejects(other, { reason: "DEVICE_IN_USE", message: new RegExp(sandbox.id) });
  assert.equal((await world.core.sandboxes.list()).length, 1);
  await sandbox.main.stop();
  assert.equal(world.pci.driverOf(DISK), "vfio-pci");
  await second.stop();
  assert.equal(world.pci.driverOf(DISK), "nvme");
});

test("pci: whatever fails on the way, the host has everything back", async (t) => {
  const world = await open(t);
  const create = (container: object, more: object = {}): Promise<unknown> =>
    world.core.sandboxes.create({ image: "busybox", container, ...more });
  const both = { pciDevices: [DISK, GPU] };
  const broken = new BelljarError("VMM_PROTOCOL", "broken");
  const checkNothingLeft = async (): Promise<void> => {
    assert.ok(hostHas(world));
    assert.deepEqual(await claims(world), []);
    assert.deepEqual(await world.core.sandboxes.list(), []);
  };
  world.hypervisor.fail("plugDevice", broken);
  await assert.rejects(create(both), { reason: "VMM_PROTOCOL" });
  await checkNothingLeft();
  world.guests.fault("createContainer", { kind: "fail", error: broken });
  await assert.rejects(create(both), { reason: "VMM_PROTOCOL" });
  await checkNothingLeft();
  world.hypervisor.fail("start", new BelljarError("VMM_START_FAILED", "broken"));
  await assert.rejects(create(both, { vfio: { coldPlug: "root-port" } }), { reason: "VMM_START_FAILED" });
  await checkNothingLeft();
  for (const [pciDevices, reason] of [
    [["0000:09:00.0"], "DEVICE_NOT_FOUND"],
    [["nonsense"], "INVALID_ARGUMENT"],
    [["83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"], "DEVICE_UNSUPPORTED"],
  ] as const) {
    await assert.rejects(create({ pciDevices }), { reason });
    await checkNothingLeft();
  }
  const refused = create(both, { vfio: { hotPlug: "no-port" } });
  await assert.rejects(refused, { reason: "DEVICE_UNSUPPORTED", remedy: /--hot-plug-vfio/ });
  await checkNothingLeft();
  await assert.rejects(create({}, { vfio: { hotPlug: "somewhere" } }), { reason: "INVALID_ARGUMENT" });
});

test("pci: a VM that dies, with or without an owner, has nothing any more", async (t) => {
  const world = await open(t);
  const container = { pciDevices: [DISK] };
  const sandbox = await world.core.sandboxes.create({ image: "busybox", container });
  const stopped = sandbox.main.wait().catch(() => {});
  world.guests.guest(sandbox.id).vm.end({ cause: "died", detail: "SIGKILL" });
  await stopped;
  while ((await sandbox.info()).state !== "stopped") await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(hostHas(world));
  await sandbox.start();
  await world.core.release();
  world.guests.guest(sandbox.id).vm.end({ cause: "died", detail: "SIGKILL" });
  await world.reopen();
  assert.ok(hostHas(world));
  assert.deepEqual(await claims(world), []);
});

test("pci: the next owner goes on with what is plugged, and takes out what was half plugged", async (t) => {
  const world = await open(t);
  const container = { pciDevices: [DISK] };
  const sandbox = await world.core.sandboxes.create({ image: "busybox", name: "web", container });
  await world.reopen();
  const found = await world.core.sandboxes.get("web");
  assert.equal(world.pci.driverOf(DISK), "vfio-pci");
  await found.containers.create({ image: "busybox", name: "second", pciDevices: [GPU] });
  // Killed after the second one's device was plugged, before anything was written down but the intent.
  const isGpu = ({ key }: { readonly key: string }): boolean => key === `vfio:${GPU}`;
  await rewrite(world, sandbox.id, (state) => ({
    ...state,
    devices: state.devices?.map((each) =>
      isGpu(each) ? { ...each, phase: "attaching", attachments: [], device: undefined } : each,
    ),
    ...(state.vm === undefined ? {} : { vm: { ...state.vm, devices: state.vm.devices?.slice(0, 1) ?? [] } }),
    containers: state.containers.map((each) =>
      each.name === "second" ? { ...each, inGuest: false, pending: { operation: "create", sinceMs: 1 } } : each,
    ),
  }));
  await world.reopen();
  assert.deepEqual(
    world.guests.guest(sandbox.id).vm.devices.map((each) => each.kind === "vfio" && each.hostAddresses),
    [[DISK]],
  );
  assert.equal(world.pci.driverOf(GPU), "nouveau");
  assert.deepEqual(await claims(world), ["group-6.json"]);
  await (await world.core.sandboxes.get("web")).delete({ force: true });
  assert.ok(hostHas(world));
});

test("pci: an owner that is killed at any change of the host's devices is followed by one that puts it right", async (t) => {
  for (let at = 0; at < 20; at += 1) {
    const world = await open(t);
    let count = 0;
    world.pci.onChange = () => {
      if (count++ >= at) throw new Error("killed");
    };
    const made = await world.core.sandboxes
      .create({ image: "busybox", name: "web", container: { pciDevices: [GPU] } })
      .catch(() => undefined);
    world.pci.onChange = undefined;
    await world.reopen();
    for (const { id } of await world.core.sandboxes.list()) {
      if (made === undefined) await (await world.core.sandboxes.get(id)).delete({ force: true });
    }
    if (made !== undefined) break;
    assert.ok(hostHas(world), `killed at change ${at}`);
    assert.deepEqual(await claims(world), [], `killed at change ${at}`);
  }
});
