/**
 * The host's PCI bus as Linux shows it below /sys, and its character devices below /dev. Directories are parameters, and so is
 * every change, so that a test can be any host.
 */
import { constants } from "node:fs";
import { access, open, readdir, readFile, readlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { hasErrno } from "../../base/index.ts";

export interface PciHost {
  readonly sysDir: string;
  readonly devDir: string;
  /** Without the newline at its end; undefined when there is no such file. */
  read(path: string): Promise<string | undefined>;
  /** Sorted; empty when there is no such directory. */
  list(path: string): Promise<string[]>;
  /** Last component of what a link leads to. */
  linkName(path: string): Promise<string | undefined>;
  exists(path: string): Promise<boolean>;
  write(path: string, text: string): Promise<void>;
  /** Whether a device has an owner that lets nobody else in: a mount, a swap area, a VMM. One that is not there has none. */
  isBusy(path: string): Promise<boolean>;
}

export function systemPciHost(sysDir = "/sys", devDir = "/dev"): PciHost {
  return {
    sysDir,
    devDir,
    read: (path) => absentAsUndefined(async () => (await readFile(path, "utf8")).trimEnd()),
    list: async (path) => ((await absentAsUndefined(() => readdir(path))) ?? []).sort(),
    linkName: (path) => absentAsUndefined(async () => basename(await readlink(path))),
    exists: async (path) => (await absentAsUndefined(async () => access(path).then(() => true))) ?? false,
    write: async (path, text) => {
      // Most of these files can only be written, and none may be made where the kernel has none.
      await using file = await open(path, constants.O_WRONLY);
      await file.write(text);
    },
    isBusy: async (path) => {
      try {
        // Of a block device, O_EXCL asks for it alone; of a VFIO group, so does any open.
        const flags = constants.O_RDWR | constants.O_EXCL | constants.O_NONBLOCK | constants.O_NOCTTY;
        await using _file = await open(path, flags);
        return false;
      } catch (error) {
        if (hasErrno(error, "EBUSY")) return true;
        if (isAbsent(error) || hasErrno(error, "EROFS")) return false;
        throw error;
      }
    },
  };
}

export function deviceDir(host: PciHost, address: string): string {
  return join(host.sysDir, "bus/pci/devices", address);
}

export function driverDir(host: PciHost, driver: string): string {
  return join(host.sysDir, "bus/pci/drivers", driver);
}

export function groupNode(host: PciHost, group: number): string {
  return join(host.devDir, "vfio", String(group));
}

async function absentAsUndefined<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** A device that is taken out while it is looked at answers any of these. */
function isAbsent(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR", "ENODEV", "ENXIO", "EINVAL"].some((errno) => hasErrno(error, errno));
}
