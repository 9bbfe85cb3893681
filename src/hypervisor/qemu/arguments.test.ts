import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { BelljarError, vmmLimits } from "../../base/index.ts";
import type { DeviceConfig, DiskConfig } from "../interface.ts";
import { type CommandLine, qemuArguments } from "./arguments.ts";
import { place } from "./placement.ts";
import { guestPortPath } from "./ports.ts";
import { runFiles } from "./run-files.ts";

const layer: DiskConfig = { serial: "layer-1", path: "/images/a,b.erofs", format: "raw", readOnly: true };
const own: DiskConfig = { serial: "own", path: "/sandboxes/x/disk.qcow2", format: "qcow2", readOnly: false };

const tcg: CommandLine = {
  id: "0123456789ab",
  files: runFiles("/run/belljar/0123456789ab"),
  acceleration: "tcg",
  memoryMib: 256,
  cpus: 2,
  boot: { kernelPath: "/guest/kernel", initrdPath: "/guest/initrd", kernelArguments: ["console=ttyS0", "quiet"] },
  disks: place({ disks: [layer, own] }, 8).disks,
  devices: [],
  sharedMemory: false,
  wakePort: false,
  ports: 8,
  switchPorts: 0,
  incoming: false,
};

const disk: DiskConfig = {
  serial: "data",
  path: "/dev/sdb",
  format: "raw",
  isHostDevice: true,
  readOnly: false,
  driver: "virtio-blk",
  cache: { direct: true, noFlush: true },
  rates: { readBytesPerSecond: 1_000_000, writesPerSecond: 50 },
};
const devices: readonly DeviceConfig[] = [
  { kind: "vhost-user-blk", id: "a", socketPath: "/run/a,b" },
  { kind: "vhost-user-scsi", id: "b", socketPath: "/run/b" },
  { kind: "vhost-user-net", id: "c", socketPath: "/run/c", macAddress: "02:00:00:00:00:01" },
  { kind: "vhost-user-fs", id: "d", socketPath: "/run/d", tag: "data" },
  { kind: "vfio", id: "e", hostAddresses: ["0000:03:00.0", "0000:03:00.1"] },
];

const behindSwitch: readonly DeviceConfig[] = [
  { kind: "vfio", id: "f", hostAddresses: ["0000:03:00.0"] },
  { kind: "vfio", id: "g", hostAddresses: ["0000:04:00.0"], behindSwitch: true, port: 65 },
  { kind: "vfio", id: "h", hostAddresses: ["0000:05:00.0"], behindSwitch: true },
];

for (const [name, line] of Object.entries({
  tcg,
  kvm: { ...tcg, acceleration: "kvm", disks: [], boot: { kernelPath: "/guest/kernel", kernelArguments: [] } } as const,
  load: { ...tcg, incoming: true, wakePort: true },
  devices: { ...tcg, ...place({ disks: [disk], devices }, 16), sharedMemory: true, ports: 16 },
  switch: { ...tcg, ...place({ devices: behindSwitch }, 1, undefined, 3), ports: 1, switchPorts: 3 },
})) {
  test(`the command line is what the golden file says: ${name}`, async () => {
    const golden = await readFile(join(import.meta.dirname, "golden", `${name}.txt`), "utf8");
    assert.equal(`${qemuArguments(line).join("\n")}\n`, golden);
  });
}

test("ports of the switch are given to what asks for them, and to nothing else", () => {
  const [device] = behindSwitch;
  assert.ok(device !== undefined);
  assert.throws(() => place({ devices: behindSwitch }, 8), reason("INVALID_ARGUMENT"));
  assert.throws(() => place({ devices: behindSwitch.slice(2) }, 8), reason("TOO_MANY_DEVICES"));
  assert.throws(() => place({ devices: [{ ...device, port: 64 }] }, 8, undefined, 3), reason("INVALID_ARGUMENT"));
  assert.deepEqual(guestPortPath(9), ["0000:00:11.1"]);
  assert.deepEqual(guestPortPath(64 + 17), ["0000:00:18.0", "00.0", "11.0"]);
});

test("a VM that can grow has an empty memory device, places for CPUs under KVM, and parked CPUs under TCG", () => {
  const growing = { ...tcg, memoryMaxMib: 1000, cpusMax: 4 };
  const emulated = qemuArguments(growing).join(" ");
  assert.match(emulated, /-smp cpus=4,sockets=1,cores=4,threads=1,maxcpus=4 -m size=256M,maxmem=1024M /);
  assert.match(emulated, /"requested-size":0/);
  assert.match(emulated, / quiet maxcpus=2$/);
  const real = qemuArguments({ ...growing, acceleration: "kvm", pluggedCpus: 1 });
  assert.ok(real.includes("cpus=2,sockets=1,cores=4,threads=1,maxcpus=4"));
  assert.equal(real.filter((each) => each.includes("host-x86_64-cpu") && each.includes('"core-id":2')).length, 1);
});

test("a comma in a path stays in its argument", () => {
  const args = qemuArguments({ ...tcg, files: runFiles("/run/a,b/x") });
  assert.ok(args.includes("socket,id=agent,path=/run/a,,b/x/agent.sock,server=on,wait=off"));
  assert.ok(args.includes("/run/a,b/x/vmm.pid"));
});

test("a NUL in a path is refused", () => {
  const boot = { ...tcg.boot, kernelPath: "/kernel\0,x" };
  assert.throws(() => qemuArguments({ ...tcg, boot }), reason("INVALID_ARGUMENT"));
});

test("a run directory too long for sockets is refused with a remedy", () => {
  assert.throws(
    () => runFiles(`/run/${"x".repeat(100)}`),
    (error: unknown) => {
      assert.ok(error instanceof BelljarError);
      assert.match(error.remedy ?? "", /BELLJAR_RUN/);
      return error.reason === "INVALID_ARGUMENT";
    },
  );
});

test("disks and devices get the lowest free places, and keep those that they say", () => {
  const fs: DeviceConfig = { kind: "vhost-user-fs", id: "fs", socketPath: "/run/fs", tag: "fs" };
  const blk: DiskConfig = { ...own, serial: "blk", driver: "virtio-blk" };
  const present = place(
    { disks: [{ ...layer, serial: "a" }, { ...layer, serial: "b", slot: 2 }, blk], devices: [{ ...fs, port: 0 }] },
    4,
  );
  const more = place(
    {
      disks: [
        { ...layer, serial: "c" },
        { ...layer, serial: "d" },
        { ...blk, serial: "e" },
      ],
      devices: [{ ...fs, id: "g" }],
    },
    4,
    present,
  );
  const slots = [...present.disks, ...more.disks].map((disk) =>
    disk.driver === "virtio-blk" ? `p${disk.port}` : disk.slot,
  );
  assert.deepEqual(slots, [0, 2, "p1", 1, 3, "p2"]);
  assert.deepEqual(
    [...present.devices, ...more.devices].map(({ port }) => port),
    [0, 3],
  );
  assert.throws(() => place({ devices: [{ ...fs, id: "h" }] }, 0), reason("TOO_MANY_DEVICES"));
});

test("a slot number becomes a target and a unit of at most 256", () => {
  const disks = place(
    { disks: Array.from({ length: 300 }, (_, index) => ({ ...layer, serial: `d${index}` })) },
    0,
  ).disks;
  const addresses = qemuArguments({ ...tcg, disks })
    .filter((arg) => arg.includes('"scsi-hd"'))
    .map((arg) => JSON.parse(arg))
    .map((device) => `${device["scsi-id"]}:${device["lun"]}`);
  assert.equal(addresses[255], "0:255");
  assert.equal(addresses[256], "1:0");
  assert.equal(new Set(addresses).size, 300);
});

for (const [what, disks] of Object.entries({
  "a repeated serial number": [layer, layer],
  "a serial number with a quote": [{ ...layer, serial: 'a"' }],
  "a serial number too long": [{ ...layer, serial: "a".repeat(21) }],
  "an empty serial number": [{ ...layer, serial: "" }],
  "a slot taken twice": [
    { ...layer, slot: 1 },
    { ...own, slot: 1 },
  ],
  "a slot that is none": [{ ...layer, slot: 1.5 }],
})) {
  test(`refused: ${what}`, () => {
    assert.throws(() => place({ disks }, 0), reason("INVALID_ARGUMENT"));
  });
}

test("refused: too many disks", () => {
  const disks = Array.from({ length: vmmLimits.disksMax + 1 }, (_, index) => ({ ...layer, serial: `d${index}` }));
  assert.throws(() => place({ disks }, 0), reason("TOO_MANY_DEVICES"));
});

function reason(expected: string): (error: unknown) => boolean {
  return (error) => error instanceof BelljarError && error.reason === expected;
}
