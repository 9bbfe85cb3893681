/** How a container's disks are told apart: the first letters of their serial numbers. */
import type { DiskConfig } from "../hypervisor/interface.ts";

/** Read-only, shared by all containers that have it, and not the container's to remove. */
export const LAYER = "l-";
export const WRITABLE = "w-";
export const SWAP = "s-";
/** Holds what is mounted, where that is the container's own. */
export const MOUNT = "m-";
/** A root file system that was handed in: not the container's to remove either. */
export const ROOT = "r-";

/** Disks that are made for a container and removed with it. */
export function ownDisks(disks: readonly DiskConfig[]): readonly DiskConfig[] {
  return disks.filter(({ serial }) => [WRITABLE, SWAP, MOUNT].some((prefix) => serial.startsWith(prefix)));
}
