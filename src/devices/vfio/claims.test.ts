import assert from "node:assert/strict";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, test } from "../../../test/support/harness.ts";
import { type MemoryPciFunction, MemoryPciHost } from "../../../test/support/memory-pci-host.ts";
import { silentLog, systemClock } from "../../base/index.ts";
import { acquireLock } from "../../store/index.ts";
import { VfioClaims, type VfioHolder } from "./claims.ts";
import { parseVfioSource, type VfioSource } from "./source.ts";

const DISK = "0000:01:00.0";
/** Two functions of one device, and the port that they are behind. */
const PAIR: readonly MemoryPciFunction[] = [
  { address: "0000:00:02.0", group: 7, class: "0x060400", driver: "pcieport" },
  { address: "0000:02:00.0", group: 7, class: "0x030200", driver: "nvidia" },
  { address: "0000:02:00.1", group: 7, class: "0x040300", driver: "snd_hda_intel" },
];

interface Made {
  readonly pci: MemoryPciHost;
  readonly claims: VfioClaims;
  readonly holder: VfioHolder;
  readonly other: VfioHolder;
  readonly rootDir: string;
  files(): Promise<string[]>;
}

async function make(t: TestScope, functions: readonly MemoryPciFunction[] = []): Promise<Made> {
  const pci = await MemoryPciHost.make(t.dir, [{ address: DISK, group: 6, driver: "nvme" }, ...PAIR, ...functions]);
  const rootDir = join(t.dir, "root");
  const claimsDir = join(t.dir, "claims");
  const holder = { rootDir, sandboxId: "aaaaaaaaaaaa" };
  const other = { rootDir, sandboxId: "bbbbbbbbbbbb" };
  for (const { sandboxId } of [holder, other]) await mkdir(join(rootDir, "sandboxes", sandboxId), { recursive: true });
  const claims = new VfioClaims({ host: pci.host, claimsDir, lock: acquireLock, clock: systemClock, log: silentLog });
  const files = async (): Promise<string[]> =>
    (await readdir(claimsDir).catch(() => [])).filter((name) => name !== "lock");
  return { pci, claims, holder, other, rootDir, files };
}

function source(text: string): Exclude<VfioSource, { kind: "control" }> {
  const parsed = parseVfioSource(text);
  assert.notEqual(parsed.kind, "control");
  return parsed.kind === "control" ? { kind: "group", group: -1 } : parsed;
}

test("vfio: a device goes to vfio-pci, and back to the driver that it had", async (t) => {
  const { pci, claims, holder, files } = await make(t);
  const { group, functions } = await claims.take(source(DISK), holder);
  assert.equal(group, 6);
  assert.deepEqual(functions, [
    { address: DISK, vendor: "0x1b36", device: "0x0010", class: "0x010802", driver: "nvme" },
  ]);
  assert.equal(pci.driverOf(DISK), "vfio-pci");
  assert.deepEqual(await files(), ["group-6.json"]);
  await claims.giveBack(6, holder);
  assert.equal(pci.driverOf(DISK), "nvme");
  assert.equal(await pci.override(DISK), "(null)");
  assert.deepEqual(await files(), []);
  await claims.giveBack(6, holder);
});

test("vfio: all functions of a group go together, bridges stay, and the order is that of their addresses", async (t) => {
  const { pci, claims, holder } = await make(t);
  const { functions } = await claims.take(source("02:00.1"), holder);
  assert.deepEqual(
    functions.map(({ address }) => address),
    ["0000:02:00.0", "0000:02:00.1"],
  );
  assert.deepEqual(
    PAIR.map(({ address }) => pci.driverOf(address)),
    ["pcieport", "vfio-pci", "vfio-pci"],
  );
  await claims.giveBack(7, holder);
  assert.deepEqual(
    PAIR.map(({ address }) => pci.driverOf(address)),
    ["pcieport", "nvidia", "snd_hda_intel"],
  );
});

test("vfio: what the administrator has given to vfio-pci, or chosen a driver for, stays so", async (t) => {
  const { pci, claims, holder } = await make(t, [{ address: "0000:05:00.0", group: 9, driver: "vfio-pci" }]);
  await claims.take(source("/dev/vfio/9"), holder);
  await claims.giveBack(9, holder);
  assert.equal(pci.driverOf("0000:05:00.0"), "vfio-pci");
  assert.deepEqual(pci.changes, []);
  await pci.host.write(join(pci.host.sysDir, "bus/pci/devices", DISK, "driver_override"), "nvme");
  await claims.take(source(DISK), holder);
  await claims.giveBack(6, holder);
  assert.equal(await pci.override(DISK), "nvme");
});

test("vfio: one group goes to one sandbox, whatever is asked for it by", async (t) => {
  const { pci, claims, holder, other } = await make(t);
  await claims.take(source(DISK), holder);
  await claims.take(source("/dev/vfio/6"), holder);
  await assert.rejects(claims.take(source("/dev/vfio/6"), other), { reason: "DEVICE_IN_USE", message: /aaaaaaaaaaaa/ });
  await claims.giveBack(6, other);
  assert.equal(pci.driverOf(DISK), "vfio-pci");
  await claims.giveBack(6, holder);
  await claims.take(source(DISK), other);
});

test("vfio: a claim of a sandbox that is no more is undone by whoever asks next", async (t) => {
  const { pci, claims, holder, other, rootDir } = await make(t);
  await claims.take(source(DISK), holder);
  await rm(join(rootDir, "sandboxes", holder.sandboxId), { recursive: true });
  await claims.take(source(DISK), other);
  await claims.giveBack(6, other);
  assert.equal(pci.driverOf(DISK), "nvme");
});

test("vfio: the next owner of a root gives back what its sandboxes do not have, and nobody else's", async (t) => {
  const { pci, claims, holder, other, rootDir, files } = await make(t);
  const elsewhere = { rootDir: join(t.dir, "elsewhere"), sandboxId: "cccccccccccc" };
  await mkdir(join(elsewhere.rootDir, "sandboxes", elsewhere.sandboxId), { recursive: true });
  await claims.take(source(DISK), holder);
  await claims.take(source("/dev/vfio/7"), elsewhere);
  assert.deepEqual(await claims.recover(rootDir, () => true), []);
  const done = await claims.recover(rootDir, (id) => id === other.sandboxId);
  assert.equal(done.length, 1);
  assert.equal(pci.driverOf(DISK), "nvme");
  assert.deepEqual(await files(), ["group-7.json"]);
  assert.equal(pci.driverOf("0000:02:00.0"), "vfio-pci");
});

test("vfio: an owner that dies at any change leaves what the next one can undo", async (t) => {
  for (let at = 0; ; at += 1) {
    const dir = join(t.dir, String(at));
    const { pci, claims, holder, rootDir, files } = await make({ ...t, dir });
    let count = 0;
    pci.onChange = () => {
      if (count === at) throw new Died();
      count += 1;
    };
    // As a killed process would: nothing of the way back is done either.
    const outcome = await claims.take(source("/dev/vfio/7"), holder).catch((error: unknown) => error);
    pci.onChange = undefined;
    await claims.recover(rootDir, () => false);
    assert.deepEqual(
      PAIR.map(({ address }) => pci.driverOf(address)),
      ["pcieport", "nvidia", "snd_hda_intel"],
      `died at change ${at}`,
    );
    assert.deepEqual(await files(), []);
    if (!(outcome instanceof Error)) break;
  }
});

test("vfio: a driver that does not go along undoes the whole, and is named", async (t) => {
  const { pci, claims, holder, files } = await make(t);
  pci.onChange = (change) => {
    if (change === "unbind 0000:02:00.1 snd_hda_intel") throw Object.assign(new Error("EIO"), { code: "EIO" });
  };
  await assert.rejects(claims.take(source("/dev/vfio/7"), holder), { message: /take 0000:02:00\.1/ });
  assert.equal(pci.driverOf("0000:02:00.0"), "nvidia");
  assert.equal(pci.driverOf("0000:02:00.1"), "snd_hda_intel");
  assert.equal(await pci.override("0000:02:00.1"), "(null)");
  assert.deepEqual(await files(), []);
});

test("vfio: without an IOMMU, without vfio-pci, or without the device, the reason says which", async (t) => {
  const { pci, claims, holder } = await make(t, [{ address: "0000:08:00.0" }]);
  await assert.rejects(claims.take(source("09:00.0"), holder), { reason: "DEVICE_NOT_FOUND" });
  await assert.rejects(claims.take(source("/dev/vfio/99"), holder), { reason: "DEVICE_NOT_FOUND" });
  await assert.rejects(claims.take(source("08:00.0"), holder), { reason: "IOMMU_UNAVAILABLE" });
  await assert.rejects(claims.take(source("00:02.0"), holder), { reason: "DEVICE_UNSUPPORTED", message: /bridge/ });
  await pci.removeDriver("vfio-pci");
  await assert.rejects(claims.take(source(DISK), holder), { reason: "VFIO_UNAVAILABLE", remedy: /modprobe/ });
  const bare = await MemoryPciHost.make(join(t.dir, "bare"), [{ address: DISK, driver: "nvme" }]);
  await rm(join(bare.host.sysDir, "kernel/iommu_groups"), { recursive: true });
  const deps = { claimsDir: join(t.dir, "claims"), lock: acquireLock, clock: systemClock, log: silentLog };
  const without = new VfioClaims({ host: bare.host, ...deps });
  await assert.rejects(without.take(source(DISK), holder), { reason: "IOMMU_UNAVAILABLE", remedy: /intel_iommu=on/ });
  await assert.rejects(without.take(source("/dev/vfio/1"), holder), { reason: "IOMMU_UNAVAILABLE" });
});

test("vfio: what the host uses is not taken from it", async (t) => {
  const { pci, claims, holder } = await make(t, [
    { address: "0000:05:00.0", group: 9, driver: "virtio-pci", class: "0x020000" },
    { address: "0000:06:00.0", group: 10, driver: "amdgpu", class: "0x030000" },
    { address: "0000:07:00.0", group: 11, driver: "ahci", class: "0x010601" },
  ]);
  await pci.put(DISK, "nvme/nvme0/nvme1c0n1/uevent", "MAJOR=259\n");
  await pci.put("0000:05:00.0", "virtio3/net/eth7/flags", "0x1003\n");
  await pci.put("0000:06:00.0", "boot_vga", "1\n");
  await pci.put("0000:07:00.0", "ata1/host0/target0:0:0/0:0:0:0/block/sda/uevent", "DEVNAME=sda\n");
  pci.busy.add("nvme1n1");
  pci.busy.add("sda");
  await assert.rejects(claims.take(source(DISK), holder), { reason: "DEVICE_IN_USE", message: /disk nvme1c0n1/ });
  await assert.rejects(claims.take(source("05:00.0"), holder), { reason: "DEVICE_IN_USE", message: /eth7 is up/ });
  await assert.rejects(claims.take(source("06:00.0"), holder), { reason: "DEVICE_IN_USE", message: /display/ });
  await assert.rejects(claims.take(source("07:00.0"), holder), { reason: "DEVICE_IN_USE", message: /disk sda/ });
  assert.deepEqual(pci.changes, []);
  pci.busy.clear();
  await pci.put("0000:05:00.0", "virtio3/net/eth7/flags", "0x1002\n");
  for (const text of [DISK, "05:00.0", "07:00.0"]) await claims.take(source(text), holder);
});

test("vfio: a group that another member keeps from the guest is named with it", async (t) => {
  const bridge = { address: "0000:00:03.0", group: 12, class: "0x060000", driver: "agpgart" };
  const { pci, claims, holder } = await make(t, [bridge, { address: "0000:05:00.0", group: 12, driver: "nvme" }]);
  await assert.rejects(claims.take(source("05:00.0"), holder), {
    reason: "GROUP_NOT_VIABLE",
    message: /00:03\.0 \(agpgart\)/,
  });
  assert.equal(pci.driverOf("0000:05:00.0"), "nvme");
});

test("vfio: a device that goes away is an error while it is taken, and none when it is given back", async (t) => {
  const { pci, claims, holder, files } = await make(t);
  pci.onChange = async (change) => {
    if (change.startsWith("unbind 0000:01:00.0 nvme")) await pci.remove(DISK);
  };
  await assert.rejects(claims.take(source(DISK), holder), { reason: "DEVICE_NOT_FOUND", message: /has gone/ });
  assert.deepEqual(await files(), []);
  await claims.take(source("/dev/vfio/7"), holder);
  await pci.remove("0000:02:00.0");
  await claims.giveBack(7, holder);
  assert.equal(pci.driverOf("0000:02:00.1"), "snd_hda_intel");
  assert.deepEqual(await files(), []);
});

test("vfio: a driver that was unloaded meanwhile is not waited for", async (t) => {
  const { pci, claims, holder } = await make(t);
  await claims.take(source(DISK), holder);
  await pci.removeDriver("nvme");
  await claims.giveBack(6, holder);
  assert.equal(pci.driverOf(DISK), undefined);
});

class Died extends Error {}
