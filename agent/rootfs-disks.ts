/** What the host says of a container's root file system, checked and in the agent's words. */
import { BelljarError } from "../src/base/errors.ts";
import type { Disk, RootFilesystem } from "../src/protocol/index.ts";
import { fileSystemNamed } from "./file-systems.ts";
import type { RootDisk, RootfsDisks } from "./rootfs.ts";

/** @throws BelljarError `INVALID_ARGUMENT` */
export function rootfsDisks(rootfs: RootFilesystem | undefined): RootfsDisks {
  if (rootfs?.root !== undefined) return { kind: "disk", disk: rootDisk(rootfs.root) };
  const { layers = [], writable, tmpfsBytes = 0n, writableHasGrown = false } = rootfs ?? {};
  if (layers.length > 0 && writable !== undefined) {
    const upper = { kind: "disk", serial: writable.serial, hasGrown: writableHasGrown } as const;
    return { kind: "layers", layers: layers.map(rootDisk), upper };
  }
  if (layers.length > 0 && tmpfsBytes > 0n) {
    return { kind: "layers", layers: layers.map(rootDisk), upper: { kind: "tmpfs", sizeBytes: Number(tmpfsBytes) } };
  }
  throw new BelljarError("INVALID_ARGUMENT", "a container needs at least one layer, and a disk or memory to write to");
}

function rootDisk({ serial, fileSystem }: Disk): RootDisk {
  return { serial, fileSystem: fileSystem === "" ? "erofs" : fileSystemNamed(fileSystem) };
}
