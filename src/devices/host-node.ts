/** What a path of the host is, as far as devices go: looked at, never changed. */
import { constants, type FileHandle, open, readFile, realpath, stat } from "node:fs/promises";
import { BelljarError, hasErrno } from "../base/index.ts";

export interface HostNode {
  readonly type: "block" | "character" | "file";
  /** Links followed. */
  readonly path: string;
  /** Equal for everything that is the same device, or the same file. */
  readonly key: string;
  readonly major: number;
  readonly sizeBytes: number;
}

/** Majors of CD-ROM drives, old ones included, and of floppy drives: nothing for a guest, and slow to fail. */
const CDROM_MAJORS = new Set([11, 15, 16, 17, 18, 20, 23, 24, 25, 26, 27, 28, 29, 30, 32]);
const FLOPPY_MAJOR = 2;

/** @throws BelljarError `DEVICE_NOT_FOUND`, `DEVICE_UNSUPPORTED`, `PERMISSION_DENIED` */
export async function inspectHostNode(given: string): Promise<HostNode> {
  if (!given.startsWith("/") || given.includes("\0")) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(given.slice(0, 80))} is not an absolute path`);
  }
  const path = await realpath(given).catch((error: unknown) => {
    if (!hasErrno(error, "ENOENT") && !hasErrno(error, "ENOTDIR")) throw BelljarError.from(error);
    throw new BelljarError("DEVICE_NOT_FOUND", `there is nothing at ${given}`, { facts: { path: given } });
  });
  const info = await stat(path);
  const { rdev, size } = info;
  const major = (rdev >> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
  if (info.isFile()) return { type: "file", path, key: `file:${path}`, major: 0, sizeBytes: size };
  if (info.isCharacterDevice()) return { type: "character", path, key: `c:${major}:${minor}`, major, sizeBytes: 0 };
  if (!info.isBlockDevice()) {
    throw new BelljarError("DEVICE_UNSUPPORTED", `${given} is neither a file nor a device`, {
      facts: { path: given },
      remedy: "To give a directory to a container, use `--mount`.",
    });
  }
  refuseDrives(path, major);
  return { type: "block", path, key: `b:${major}:${minor}`, major, sizeBytes: await blockSize(`${major}:${minor}`) };
}

export function isDrive(type: HostNode["type"], major: number): boolean {
  return type === "block" && (major === FLOPPY_MAJOR || CDROM_MAJORS.has(major));
}

function refuseDrives(path: string, major: number): void {
  if (!isDrive("block", major)) return;
  const what = major === FLOPPY_MAJOR ? "a floppy drive" : "a CD-ROM drive";
  throw new BelljarError("DEVICE_UNSUPPORTED", `${path} is ${what}`, {
    facts: { path, major },
    remedy: "Read its medium into an image file, and add that.",
  });
}

async function blockSize(numbers: string): Promise<number> {
  const sectors = await readFile(`/sys/dev/block/${numbers}/size`, "utf8").catch(() => "0");
  return Number(sectors) * 512;
}

/**
 * Refuses a block device that the host itself uses: one that is mounted, or part of another device.
 * @throws BelljarError `DEVICE_IN_USE`, `DEVICE_NOT_FOUND`, `PERMISSION_DENIED`
 */
export async function checkHostUnused(path: string, readOnly: boolean): Promise<void> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_EXCL);
  } catch (error) {
    if (hasErrno(error, "EBUSY")) {
      throw new BelljarError("DEVICE_IN_USE", `the host uses ${path}: it is mounted, or part of another device`, {
        facts: { path },
        remedy: "Unmount it on the host first.",
      });
    }
    if (hasErrno(error, "ENXIO") || hasErrno(error, "ENOMEDIUM")) {
      throw new BelljarError("DEVICE_NOT_FOUND", `there is no device behind ${path}`, { facts: { path } });
    }
    throw BelljarError.from(error);
  } finally {
    await file?.close();
  }
}
