/** File systems that a disk may come with: how each is mounted, and its module, which is loaded when it is first needed. */
import { readFile } from "node:fs/promises";
import { BelljarError } from "../src/base/errors.ts";
import type { RunTool } from "./tools.ts";

export const fileSystems = ["erofs", "ext4", "xfs", "btrfs", "squashfs"] as const;
export type FileSystem = (typeof fileSystems)[number];

/** Writing times of access would make reading a write. */
const OPTIONS: { readonly [type in FileSystem]: string } = {
  erofs: "nodev",
  // Without `noinit_itable` the kernel would write zeros over the tables of an empty disk, which then takes room on the host; without the
  // last it would read the maps of all free blocks at once, in every copy anew.
  ext4: "nodev,noatime,noinit_itable,no_prefetch_block_bitmaps",
  // Copies of one disk have one identity; xfs alone minds.
  xfs: "nodev,noatime,nouuid",
  btrfs: "nodev,noatime",
  squashfs: "nodev",
};

/** @throws BelljarError `INVALID_ARGUMENT` for a word that stands for none */
export function fileSystemNamed(word: string): FileSystem {
  const found = fileSystems.find((type) => type === word);
  if (found !== undefined) return found;
  throw new BelljarError("INVALID_ARGUMENT", "the guest has no such file system");
}

/** A line of a table of mounts. */
export function mountLine(device: string, target: string, type: FileSystem, readOnly: boolean): string {
  return `${device} ${target} ${type} ${readOnly ? "ro" : "rw"},${OPTIONS[type]} 0 0`;
}

/** Has the kernel know these of the file systems above. @throws BelljarError `AGENT_FAILED` */
export async function loadFileSystems(
  types: readonly string[],
  { runTool }: { readonly runTool: RunTool },
): Promise<void> {
  const wanted = fileSystems.filter((type) => types.includes(type));
  const known = new Set((await readFile("/proc/filesystems", "latin1")).split(/\s+/));
  const missing = wanted.filter((type) => !known.has(type));
  if (missing.length > 0) await runTool("busybox", ["modprobe", "-a", ...missing]);
}
