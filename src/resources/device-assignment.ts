/** Whether the host can hand PCI devices on to guests: an IOMMU that is switched on, and the drivers that lend devices out. */
import { type Capability, look } from "./capability.ts";

interface HostFiles {
  exists(path: string): Promise<boolean>;
}

const COST = "no PCI devices of the host in sandboxes";

export function inspectIommu(host: HostFiles): Promise<Capability> {
  return look("iommu", false, async () => {
    if (await host.exists("/sys/kernel/iommu_groups/0")) return { status: "yes", detail: "on" };
    return {
      status: "no",
      detail: "none, or not switched on",
      cost: COST,
      remedy: "Switch VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on or amd_iommu=on.",
    };
  });
}

export function inspectVfio(host: HostFiles): Promise<Capability> {
  return look("vfio-pci", false, async () => {
    const missing: string[] = [];
    if (!(await host.exists("/sys/bus/pci/drivers/vfio-pci"))) missing.push("vfio-pci");
    if (!(await host.exists("/dev/vfio/vfio"))) missing.push("vfio");
    if (!(await host.exists("/sys/module/vfio_iommu_type1"))) missing.push("vfio_iommu_type1");
    if (missing.length === 0) return { status: "yes", detail: "loaded" };
    return {
      status: "no",
      detail: `not loaded: ${missing.join(", ")}`,
      cost: COST,
      remedy: `Run \`modprobe -a ${missing.join(" ")}\`.`,
    };
  });
}
