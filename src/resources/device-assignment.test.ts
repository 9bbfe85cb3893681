import assert from "node:assert/strict";
import { test } from "node:test";
import { inspectIommu, inspectVfio } from "./device-assignment.ts";

const hostWith = (...paths: string[]): { exists(path: string): Promise<boolean> } => ({
  exists: async (path) => paths.includes(path),
});

test("doctor says what keeps devices from being handed on, and what to do", async () => {
  const without = await inspectIommu(hostWith());
  assert.equal(without.status, "no");
  assert.match(without.remedy ?? "", /intel_iommu=on/);
  assert.equal((await inspectIommu(hostWith("/sys/kernel/iommu_groups/0"))).status, "yes");
  const half = await inspectVfio(hostWith("/sys/bus/pci/drivers/vfio-pci", "/dev/vfio/vfio"));
  assert.match(half.remedy ?? "", /modprobe -a vfio_iommu_type1`/);
  const all = hostWith("/sys/bus/pci/drivers/vfio-pci", "/dev/vfio/vfio", "/sys/module/vfio_iommu_type1");
  assert.equal((await inspectVfio(all)).status, "yes");
  assert.ok([without, half].every(({ required }) => !required));
});
