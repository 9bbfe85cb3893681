/**
 * What a caller may name a device by: its address on the host's PCI bus, or its IOMMU group's device file. Text only; nothing is
 * looked at here.
 */
import { BelljarError } from "../../base/index.ts";

export type VfioSource =
  | { readonly kind: "address"; readonly address: string }
  | { readonly kind: "group"; readonly group: number }
  /** The file by which a VMM reaches the IOMMU. It stands for no device of its own. */
  | { readonly kind: "control" };

export const CONTROL_DEVICE = "/dev/vfio/vfio";

const ADDRESS = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/;
const GROUP = /^\/dev\/vfio\/(\d{1,6})$/;
const MEDIATED = /^(?:\/sys\/bus\/mdev\/devices\/)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const IN_SYSFS = /^\/sys\/bus\/pci\/devices\/([^/]+)\/?$/;

/** @throws BelljarError `INVALID_ARGUMENT`, `DEVICE_UNSUPPORTED` for mediated devices */
export function parseVfioSource(text: string): VfioSource {
  const given = text.trim().toLowerCase();
  if (given === CONTROL_DEVICE) return { kind: "control" };
  const group = GROUP.exec(given)?.[1];
  if (group !== undefined) return { kind: "group", group: Number(group) };
  const [, domain = "0000", bus, slot, pciFunction] = ADDRESS.exec(IN_SYSFS.exec(given)?.[1] ?? given) ?? [];
  if (bus !== undefined && slot !== undefined && Number.parseInt(slot, 16) < 32) {
    return { kind: "address", address: `${domain}:${bus}:${slot}.${pciFunction}` };
  }
  if (MEDIATED.test(given) || given.startsWith("/dev/vfio/devices/")) {
    throw new BelljarError(
      "DEVICE_UNSUPPORTED",
      `${text} is a mediated device or one of iommufd, which Belljar cannot hand on`,
      {
        facts: { device: text.slice(0, 80) },
        remedy: "Name a whole PCI device by its address, or by its group: /dev/vfio/GROUP.",
      },
    );
  }
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 80))} names no PCI device`, {
    remedy: "Give an address as `lspci -D` shows it, such as 0000:03:00.0, or a group's file, such as /dev/vfio/12.",
  });
}

/** Whether the text is meant for this kind of device, right or wrong. */
export function isVfioSource(text: string): boolean {
  return text.startsWith("/dev/vfio/") || ADDRESS.test(text.trim().toLowerCase()) || IN_SYSFS.test(text);
}

/** The control device before all others, as a guest that uses VFIO itself must meet them; otherwise in their order. */
export function controlFirst<T>(devices: readonly T[], pathOf: (device: T) => string): T[] {
  const isControl = (device: T): boolean => pathOf(device) === CONTROL_DEVICE;
  return [...devices.filter(isControl), ...devices.filter((device) => !isControl(device))];
}
