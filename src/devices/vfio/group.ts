/**
 * IOMMU groups: what one device can reach, and what can therefore only be handed on together. A group is found, and judged; nothing
 * is changed here.
 */
import { join } from "node:path";
import { BelljarError, vmmLimits } from "../../base/index.ts";
import { deviceDir, driverDir, groupNode, type PciHost } from "./pci-host.ts";
import type { VfioSource } from "./source.ts";

export interface PciFunction {
  readonly address: string;
  /** As sysfs has them: `0x` and four digits, the class six. */
  readonly vendor: string;
  readonly device: string;
  readonly class: string;
  /** The driver that has it now. */
  readonly driver?: string | undefined;
}

export interface IommuGroup {
  readonly group: number;
  /** What goes to the guest: everything in the group but bridges; in the order of their addresses. */
  readonly functions: readonly PciFunction[];
}

export const VFIO_DRIVER = "vfio-pci";

/** Drivers that leave a device to whoever has its group: what the kernel's own check lets through. */
const HARMLESS_DRIVERS = [VFIO_DRIVER, "pci-stub", "pcieport"];

const BRIDGE_CLASS = /^0x06/;

/**
 * @throws BelljarError `IOMMU_UNAVAILABLE`, `VFIO_UNAVAILABLE`, `DEVICE_NOT_FOUND`, `DEVICE_UNSUPPORTED` for a bridge or for more
 * functions than one port has room for
 */
export async function findGroup(host: PciHost, source: Exclude<VfioSource, { kind: "control" }>): Promise<IommuGroup> {
  const group = source.kind === "group" ? source.group : await groupOf(host, source.address);
  const addresses = await host.list(join(host.sysDir, "kernel/iommu_groups", String(group), "devices"));
  if (addresses.length === 0) {
    await checkIommu(host);
    throw new BelljarError("DEVICE_NOT_FOUND", `the host has no IOMMU group ${group}`, { facts: { group } });
  }
  const found = await Promise.all(addresses.map((address) => readFunction(host, address)));
  const functions = found.filter((each) => !BRIDGE_CLASS.test(each.class));
  const isAsked = source.kind === "group" || functions.some(({ address }) => address === source.address);
  if (functions.length === 0 || !isAsked) {
    const what = source.kind === "group" ? `IOMMU group ${group} has only bridges` : `${source.address} is a bridge`;
    throw new BelljarError("DEVICE_UNSUPPORTED", `${what}, which cannot be handed to a guest`, { facts: { group } });
  }
  if (functions.length > vmmLimits.portFunctionsMax) {
    throw new BelljarError("DEVICE_UNSUPPORTED", `IOMMU group ${group} has ${functions.length} devices`, {
      facts: { group, devices: functions.length, max: vmmLimits.portFunctionsMax },
      remedy: `Belljar hands at most ${vmmLimits.portFunctionsMax} on together; a slot with ACS has smaller groups.`,
    });
  }
  if (!(await host.exists(driverDir(host, VFIO_DRIVER)))) {
    throw new BelljarError("VFIO_UNAVAILABLE", "the host's kernel has not loaded the driver vfio-pci");
  }
  return { group, functions };
}

/** Looks at one function anew. @throws BelljarError `DEVICE_NOT_FOUND` when it has gone */
export async function readFunction(host: PciHost, address: string): Promise<PciFunction> {
  const dir = deviceDir(host, address);
  const [vendor, device, pciClass, driver] = await Promise.all([
    host.read(join(dir, "vendor")),
    host.read(join(dir, "device")),
    host.read(join(dir, "class")),
    host.linkName(join(dir, "driver")),
  ]);
  if (vendor === undefined || device === undefined || pciClass === undefined) throw notFound(address);
  return { address, vendor, device, class: pciClass, driver };
}

/**
 * Whether the kernel would let a VMM have the group: none of it may belong to a driver of the host.
 * @throws BelljarError `GROUP_NOT_VIABLE`, naming those that do
 */
export async function checkViable(host: PciHost, { group }: IommuGroup): Promise<void> {
  const addresses = await host.list(join(host.sysDir, "kernel/iommu_groups", String(group), "devices"));
  const members = await Promise.all(addresses.map((address) => readFunction(host, address)));
  const foreign = members.filter(({ driver }) => driver !== undefined && !HARMLESS_DRIVERS.includes(driver));
  if (foreign.length === 0 && (await host.exists(groupNode(host, group)))) return;
  const names = foreign.map(({ address, driver }) => `${address} (${driver})`);
  const why = names.length === 0 ? "it has no file in /dev/vfio" : `a driver of the host has ${names.join(", ")}`;
  throw new BelljarError("GROUP_NOT_VIABLE", `IOMMU group ${group} cannot be handed to a guest: ${why}`, {
    facts: { group, devices: foreign.map(({ address }) => address) },
  });
}

export async function groupOf(host: PciHost, address: string): Promise<number> {
  if (!(await host.exists(deviceDir(host, address)))) throw notFound(address);
  const name = await host.linkName(join(deviceDir(host, address), "iommu_group"));
  if (name !== undefined && /^\d{1,6}$/.test(name)) return Number(name);
  await checkIommu(host);
  throw new BelljarError("IOMMU_UNAVAILABLE", `no IOMMU keeps ${address} apart from the rest of the host`, {
    facts: { device: address },
  });
}

async function checkIommu(host: PciHost): Promise<void> {
  if (await hasIommu(host)) return;
  throw new BelljarError("IOMMU_UNAVAILABLE", "the host has no IOMMU, or has not switched it on");
}

export async function hasIommu(host: PciHost): Promise<boolean> {
  return (await host.list(join(host.sysDir, "kernel/iommu_groups"))).length > 0;
}

function notFound(address: string): BelljarError {
  return new BelljarError("DEVICE_NOT_FOUND", `the host has no PCI device ${address}`, { facts: { device: address } });
}
