/**
 * How a disk is said to QEMU. Disks hang on one virtio-scsi controller, where a disk's slot is its address, or, as virtio-blk, on
 * a root port each; either way a restored VM finds it where it was.
 */
import type { DiskConfig } from "../interface.ts";
import type { BackEnd, PlugParts, QemuObject } from "./plug-parts.ts";
import { portId } from "./ports.ts";

/** Id of the virtio-scsi controller. */
export const DISK_BUS = "disks";

/** A disk with its address: a slot on the bus or, for virtio-blk, a port. */
export type PlacedDisk = DiskConfig &
  (
    | { readonly slot: number; readonly driver?: "virtio-scsi" }
    | { readonly port: number; readonly driver: "virtio-blk" }
  );

/**
 * 256 disks to a target: SCSI numbers beyond that need another address format. A target has the lowest slots first, and the
 * guest's kernel asks each target for its list, so the order costs nothing.
 */
const LUNS_PER_TARGET = 256;

export function diskParts(disk: PlacedDisk): PlugParts {
  return {
    what: `disk ${disk.serial}`,
    backEnds: diskBackEnds(disk),
    devices: [disk.driver === "virtio-blk" ? blkDevice(disk) : scsiDevice(disk)],
  };
}

export function nodeName(serial: string): string {
  return `node-${serial}`;
}

function deviceId(serial: string): string {
  return `disk-${serial}`;
}

/** The node that was there before any overlay. */
export function bottomNode({ serial, rates }: DiskConfig): string {
  return rates === undefined ? nodeName(serial) : `file-${serial}`;
}

/** Overlays are counted from 1. */
export function overlayNode(disk: DiskConfig, number: number): string {
  return `${bottomNode(disk)}-${number}`;
}

/** The overlay's file: by its name QEMU says which one it is. */
export function overlayFileNode({ serial }: DiskConfig, number: number): string {
  return `over-${serial}-${number}`;
}

/** What was joined below an overlay. */
export function joinedNode(disk: DiskConfig, number: number): string {
  return `${bottomNode(disk)}-j${number}`;
}

/** The node that is written to now. */
export function topNode(disk: DiskConfig): string {
  return (disk.overlays ?? 0) === 0 ? bottomNode(disk) : overlayNode(disk, disk.overlays ?? 0);
}

/** The node that the device uses, below it what it needs. */
function diskBackEnds(disk: DiskConfig): BackEnd[] {
  const name = nodeName(disk.serial);
  const { rates, joined } = disk;
  const below = joined === undefined ? bottomNode(disk) : joinedNode(disk, joined);
  // To be removed with the rest; a disk that is about to be plugged has none.
  const first = joined ?? 1;
  const overlays = Array.from({ length: Math.max(0, (disk.overlays ?? 0) + 1 - first) }, (_, index): BackEnd => {
    const id = overlayNode(disk, first + index);
    return { type: "blockdev", id, value: { driver: "qcow2", "node-name": id, backing: below } };
  });
  if (rates === undefined) return [{ type: "blockdev", id: below, value: blockNode(disk, below) }, ...overlays];
  const group = `rates-${disk.serial}`;
  const inner = below;
  return [
    { type: "object", id: group, value: { "qom-type": "throttle-group", id: group, limits: throttleLimits(rates) } },
    { type: "blockdev", id: inner, value: blockNode(disk, inner) },
    ...overlays,
    {
      type: "blockdev",
      id: name,
      value: {
        driver: "throttle",
        "node-name": name,
        "read-only": disk.readOnly,
        "throttle-group": group,
        file: inner,
      },
    },
  ];
}

function blockNode(disk: DiskConfig, name: string): QemuObject {
  // What the guest trims is given back to the host's file system.
  const discard = disk.readOnly ? "ignore" : "unmap";
  const cache = { direct: disk.cache?.direct === true, "no-flush": disk.cache?.noFlush === true };
  const shared = { "read-only": disk.readOnly, discard, cache };
  return {
    driver: disk.format,
    "node-name": name,
    ...shared,
    file: { driver: disk.isHostDevice === true ? "host_device" : "file", filename: disk.path, ...shared },
  };
}

function throttleLimits(rates: NonNullable<DiskConfig["rates"]>): QemuObject {
  const limit = (name: string, value: number | undefined): QemuObject => (value === undefined ? {} : { [name]: value });
  return {
    ...limit("bps-read", rates.readBytesPerSecond),
    ...limit("bps-write", rates.writeBytesPerSecond),
    ...limit("iops-read", rates.readsPerSecond),
    ...limit("iops-write", rates.writesPerSecond),
  };
}

/** A full host disk is an I/O error in the guest. QEMU's own default stops the VM, which nobody would understand. */
function errorPolicy(disk: DiskConfig): QemuObject {
  return { ...(disk.readOnly ? {} : { werror: "report" }), rerror: "report" };
}

function scsiDevice(disk: DiskConfig & { readonly slot: number }): PlugParts["devices"][number] {
  return {
    driver: "scsi-hd",
    id: deviceId(disk.serial),
    bus: `${DISK_BUS}.0`,
    "scsi-id": Math.floor(disk.slot / LUNS_PER_TARGET),
    lun: disk.slot % LUNS_PER_TARGET,
    drive: nodeName(disk.serial),
    serial: disk.serial,
    device_id: disk.serial,
    ...errorPolicy(disk),
  };
}

function blkDevice(disk: DiskConfig & { readonly port: number }): PlugParts["devices"][number] {
  return {
    driver: "virtio-blk-pci",
    id: deviceId(disk.serial),
    bus: portId(disk.port),
    drive: nodeName(disk.serial),
    serial: disk.serial,
    // The write cache that the guest sees follows the node's own, unless it is said here.
    "write-cache": "on",
    ...errorPolicy(disk),
  };
}
