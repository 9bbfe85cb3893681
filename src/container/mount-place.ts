/** The mounts of one container, once they are planned: in its state, among its disks, in its specification, in what the agent is asked. */
import { join } from "node:path";
import type { DiskConfig } from "../hypervisor/interface.ts";
import { MOUNT } from "./disk-names.ts";
import type { MountState } from "./mount-config.ts";
import type { MountDisk, MountPlan, OwnDisk } from "./mount-plan.ts";
import type { OciMount } from "./oci-spec.ts";

/** First letters of the serial numbers of disks: a volume, a disk or device of the host. */
const SHARED = ["v-", "b-"];
/** And of the devices of live mounts. */
const LIVE = "f-";

export interface PlacedMounts {
  readonly mounts: readonly MountState[];
  readonly disks: readonly DiskConfig[];
  /** Those that are to be made, by serial number. */
  readonly own: ReadonlyMap<string, OwnDisk>;
}

/** Gives each mount its disk. */
export function placeMounts(plan: MountPlan, containerId: string, disksDir: string): PlacedMounts {
  const disks = new Map<string, DiskConfig>();
  const own = new Map<string, OwnDisk>();
  const mounts = plan.mounts.map((planned, index): MountState => {
    const { state, shared } = planned;
    if (shared !== undefined) {
      const { what: _, ...disk } = shared;
      disks.set(disk.serial, disk);
    }
    if (planned.own === undefined || state.disk === undefined) return state;
    const serial = `${MOUNT}${containerId}-${index}`;
    // Written to once, when it is filled, even if the container may only read it.
    disks.set(serial, { serial, path: join(disksDir, `${serial}.raw`), format: "raw", readOnly: false });
    own.set(serial, planned.own);
    return { ...state, disk: { ...state.disk, serial } };
  });
  return { mounts, disks: [...disks.values()], own };
}

/** Of the device behind which a directory of the host is, and its tag in the guest. */
export function sharedDeviceId(containerId: string, index: number): string {
  return `${LIVE}${containerId}-${index}`;
}

export function isSharedDeviceOf(id: string): boolean {
  return id.startsWith(LIVE);
}

/** Of a disk that is there without its container, and stays when that goes. */
export function isShared({ serial }: { readonly serial: string }): boolean {
  return SHARED.some((prefix) => serial.startsWith(prefix));
}

/** The disks of a container that others may want as well. */
export function sharedDisks(container: {
  readonly disks: readonly DiskConfig[];
  readonly mounts?: readonly MountState[] | undefined;
}): readonly MountDisk[] {
  return container.disks.filter(isShared).map((disk) => {
    const mount = container.mounts?.find((each) => each.disk?.serial === disk.serial);
    return { ...disk, what: mount?.type === "volume" ? `volume ${mount.source}` : `disk ${disk.path}` };
  });
}

/** In the specification a mount's source is this, until the agent knows where it lies in the guest. */
export function mountKey(index: number): string {
  return `mount-${index}`;
}

export const MOUNT_SOURCE = "belljar:";

/** In their order; what the guest has anyway is left out. */
export function specMounts(mounts: readonly MountState[]): readonly OciMount[] {
  return mounts.flatMap((mount, index): OciMount[] => {
    const { destination, how, options } = mount;
    switch (how) {
      case "none":
        return [];
      case "memory":
        return [{ destination, type: "tmpfs", source: "tmpfs", options }];
      case "guest":
        return [{ destination, type: "bind", source: mount.source, options }];
      default:
        return [{ destination, type: "bind", source: `${MOUNT_SOURCE}${mountKey(index)}`, options }];
    }
  });
}

export interface GuestMountRequest {
  readonly key: string;
  readonly from:
    | {
        readonly case: "disk";
        readonly value: {
          readonly serial: string;
          readonly fileSystem: string;
          readonly options: string[];
          readonly readOnly: boolean;
          readonly directory: string;
          readonly copyUpFrom: string;
          readonly fsGroup?: number;
          readonly fsGroupAlways: boolean;
        };
      }
    | { readonly case: "copy"; readonly value: { readonly isFile: boolean } }
    | {
        readonly case: "live";
        readonly value: { readonly tag: string; readonly readOnly: boolean; readonly isFile: boolean };
      };
}

/** What the agent must have ready before the container can be started. */
export function guestMounts(
  containerId: string,
  mounts: readonly MountState[],
  disks: readonly DiskConfig[],
): GuestMountRequest[] {
  return mounts.flatMap((mount, index): GuestMountRequest[] => {
    const { how, disk } = mount;
    const key = mountKey(index);
    if (how === "copy") return [{ key, from: { case: "copy", value: { isFile: mount.isFile === true } } }];
    if (how === "live") {
      const { readOnly, isFile = false } = mount;
      return [{ key, from: { case: "live", value: { tag: sharedDeviceId(containerId, index), readOnly, isFile } } }];
    }
    if (how !== "disk" || disk === undefined) return [];
    const { serial, fileSystem, options, directory = "", fsGroup } = disk;
    const readOnly = disks.find((each) => each.serial === serial)?.readOnly === true;
    const copyUpFrom = disk.copyUp === true && !readOnly ? mount.destination : "";
    const group = fsGroup === undefined ? {} : { fsGroup: fsGroup.gid };
    const fsGroupAlways = fsGroup?.always === true;
    const value = {
      serial,
      fileSystem,
      options: [...options],
      readOnly,
      directory,
      copyUpFrom,
      ...group,
      fsGroupAlways,
    };
    return [{ key, from: { case: "disk", value } }];
  });
}
