/**
 * How a disk is said to QEMU, on its command line and over QMP alike. All disks hang on one virtio-scsi controller; a disk's
 * slot is its address there, so that a restored VM finds it where it was.
 */
import { BelljarError, vmmLimits } from "../../base/index.ts";
import type { DiskConfig } from "../interface.ts";

/** Id of the virtio-scsi controller. */
export const DISK_BUS = "disks";

/** A disk with its address on the bus. */
export interface PlacedDisk extends DiskConfig {
  readonly slot: number;
}

/** Plain data that QEMU takes as JSON, for `-blockdev` and `blockdev-add`, `-device` and `device_add`. */
export type QemuObject = { readonly [key: string]: string | number | boolean | QemuObject | readonly QemuObject[] };

/**
 * 256 disks to a target: SCSI numbers beyond that need another address format. A target has the lowest slots first, and the
 * guest's kernel asks each target for its list, so the order costs nothing.
 */
const LUNS_PER_TARGET = 256;

export function nodeName(serial: string): string {
  return `node-${serial}`;
}

export function deviceId(serial: string): string {
  return `disk-${serial}`;
}

export function blockNode(disk: DiskConfig): QemuObject {
  return {
    driver: disk.format,
    "node-name": nodeName(disk.serial),
    "read-only": disk.readOnly,
    // What the guest trims is given back to the host's file system.
    discard: disk.readOnly ? "ignore" : "unmap",
    cache: { direct: false, "no-flush": false },
    file: {
      driver: "file",
      filename: disk.path,
      "read-only": disk.readOnly,
      discard: disk.readOnly ? "ignore" : "unmap",
      cache: { direct: false, "no-flush": false },
    },
  };
}

export function diskDevice(disk: PlacedDisk): QemuObject {
  return {
    driver: "scsi-hd",
    id: deviceId(disk.serial),
    bus: `${DISK_BUS}.0`,
    "scsi-id": Math.floor(disk.slot / LUNS_PER_TARGET),
    lun: disk.slot % LUNS_PER_TARGET,
    drive: nodeName(disk.serial),
    serial: disk.serial,
    device_id: disk.serial,
    // A full host disk is an I/O error in the guest. QEMU's own default stops the VM, which nobody would understand.
    ...(disk.readOnly ? {} : { werror: "report" }),
    rerror: "report",
  };
}

/**
 * Gives every disk a slot: the one it says, or the lowest that is free.
 * @throws BelljarError `INVALID_ARGUMENT` for a bad or repeated serial number, a slot taken twice, or too many disks.
 */
export function placeDisks(disks: readonly DiskConfig[], present: readonly PlacedDisk[] = []): PlacedDisk[] {
  const serials = new Set(present.map((disk) => disk.serial));
  const slots = new Set(present.map((disk) => disk.slot));
  for (const disk of disks) {
    // With its prefix a serial number becomes a QEMU id, of which the first character must be a letter and 31 are allowed.
    if (!/^[a-z0-9-]{1,20}$/.test(disk.serial)) {
      throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(disk.serial)} is no serial number for a disk`, {
        facts: { serial: disk.serial },
        remedy: "Use 1 to 20 of the characters a-z, 0-9 and -.",
      });
    }
    if (serials.has(disk.serial)) {
      throw new BelljarError("INVALID_ARGUMENT", `the VM has a disk ${disk.serial} already`, {
        facts: { serial: disk.serial },
      });
    }
    serials.add(disk.serial);
    if (disk.slot === undefined) continue;
    if (!Number.isInteger(disk.slot) || disk.slot < 0 || disk.slot >= vmmLimits.disksMax || slots.has(disk.slot)) {
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `slot ${disk.slot} is taken, or no slot, for the disk ${disk.serial}`,
        {
          facts: { serial: disk.serial, slot: disk.slot },
        },
      );
    }
    slots.add(disk.slot);
  }
  if (slots.size > vmmLimits.disksMax || present.length + disks.length > vmmLimits.disksMax) {
    throw new BelljarError("INVALID_ARGUMENT", `a VM has at most ${vmmLimits.disksMax} disks`, {
      facts: { disks: present.length + disks.length, disksMax: vmmLimits.disksMax },
    });
  }
  let next = 0;
  return disks.map((disk) => {
    if (disk.slot !== undefined) return { ...disk, slot: disk.slot };
    while (slots.has(next)) next += 1;
    slots.add(next);
    return { ...disk, slot: next };
  });
}
