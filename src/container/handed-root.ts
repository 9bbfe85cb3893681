/**
 * A root file system that a caller has ready, in the words of mount(2), as containerd hands one over: a disk or disk image, plugged as
 * it is, or the EROFS layers that an overlay of the host is made of. Nothing of it is copied, and nothing of it is removed.
 */
import { createHash } from "node:crypto";
import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, type Field, hasErrno, imageLimits } from "../base/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import { checkFileSystem, detectFileSystem, READ_ONLY_FILE_SYSTEMS } from "../volumes/index.ts";
import { LAYER } from "./disk-names.ts";
import { behindLoop, checkNotMounted, type HostMount, hostDevice, readHostMounts } from "./host-mounts.ts";

export interface RootfsConfig {
  /** `overlay` for layers; the kind of file system, or nothing, for a disk. */
  readonly type?: string | undefined;
  /** A block device, a disk image, or a directory where one EROFS layer is mounted. */
  readonly source?: string | undefined;
  /** Those that count: `ro`, and `lowerdir=`, `upperdir=` and `workdir=` of an overlay. */
  readonly options?: readonly string[] | undefined;
}

/** What the state keeps of it. */
export interface RootState {
  /** A disk is the root as it is; layers lie below what the container writes. */
  readonly kind: "disk" | "layers";
  readonly fileSystem: string;
}

export interface HandedRoot {
  /** What stands for an image's name. */
  readonly name: string;
  readonly disks: readonly DiskConfig[];
  readonly root: RootState;
}

/** @throws BelljarError `MOUNT_SOURCE_MISSING`, `MOUNT_UNSUPPORTED`, `FILE_SYSTEM_UNKNOWN`, `VOLUME_IN_USE`, `INVALID_ARGUMENT` */
export async function takeRootfs(config: RootfsConfig): Promise<HandedRoot> {
  const { type = "", source = "", options = [] } = config;
  const mounts = await readHostMounts();
  if (type === "overlay") return await takeLayers(lowerDirs(options), mounts, options);
  const path = await found(source);
  const info = await stat(path);
  if (info.isDirectory()) return await takeLayers([path], mounts, options);
  if (options.some((option) => option.startsWith("device="))) {
    throw new BelljarError("MOUNT_UNSUPPORTED", `the EROFS file system ${path} lies on several devices`);
  }
  return await takeDisk(path, type, options, mounts);
}

async function takeDisk(
  given: string,
  type: string,
  options: readonly string[],
  mounts: readonly HostMount[],
): Promise<HandedRoot> {
  const path = await behindLoop(given);
  const fileSystem = await detectFileSystem(path);
  if (!["", "auto", "none"].includes(type) && checkFileSystem(type) !== fileSystem) {
    throw new BelljarError("INVALID_ARGUMENT", `${path} has the file system ${fileSystem}, not ${type}`, {
      facts: { path, fileSystem, wanted: type },
    });
  }
  const readOnly = READ_ONLY_FILE_SYSTEMS.has(fileSystem) || options.includes("ro");
  await checkNotMounted([given, path], mounts, readOnly);
  const prefix = readOnly ? LAYER : "b-";
  return {
    name: path,
    disks: [{ serial: serialOf(prefix, path), path, format: "raw", readOnly, ...(await hostDevice(path)) }],
    root: { kind: readOnly ? "layers" : "disk", fileSystem },
  };
}

async function takeLayers(
  dirs: readonly string[],
  mounts: readonly HostMount[],
  options: readonly string[],
): Promise<HandedRoot> {
  if (dirs.length === 0 || dirs.length > imageLimits.layersMax) {
    throw new BelljarError("INVALID_ARGUMENT", `a root file system cannot have ${dirs.length} layers`, {
      facts: { layers: dirs.length, layersMax: imageLimits.layersMax },
    });
  }
  await checkUpperEmpty(options);
  const disks: DiskConfig[] = [];
  for (const dir of dirs) {
    const path = await layerBehind(await found(dir), mounts);
    disks.push({ serial: serialOf(LAYER, path), path, format: "raw", readOnly: true, ...(await hostDevice(path)) });
  }
  // The first lower directory is the uppermost.
  disks.reverse();
  return { name: disks[0]?.path ?? "", disks, root: { kind: "layers", fileSystem: "erofs" } };
}

function lowerDirs(options: readonly string[]): readonly string[] {
  return options
    .filter((option) => option.startsWith("lowerdir="))
    .flatMap((option) => option.slice("lowerdir=".length).split(":"))
    .filter((dir) => dir !== "");
}

/** The file or device that is mounted there. A layer that is not mounted yet may also lie beside its directory. */
async function layerBehind(dir: string, mounts: readonly HostMount[]): Promise<string> {
  const mount = mounts.findLast(({ target }) => target === dir);
  if (mount !== undefined && mount.type !== "erofs") throw noLayer(dir, `a file system ${mount.type} is mounted there`);
  const source = mount?.source ?? join(dir, "../layer.erofs");
  const path = await realpath(await behindLoop(source)).catch((error: unknown) => {
    throw hasErrno(error, "ENOENT") ? noLayer(dir, "no EROFS layer is mounted there") : error;
  });
  if ((await detectFileSystem(path)) !== "erofs") throw noLayer(dir, `${path} is none`);
  return path;
}

function noLayer(dir: string, why: string): BelljarError {
  return new BelljarError("MOUNT_UNSUPPORTED", `${dir} is not an EROFS layer: ${why}`, {
    facts: { path: dir },
    remedy: "Make an image of the directory with `belljar image import`, and use that.",
  });
}

/** What was written on the host would be missing in the guest, which has an upper layer of its own. */
async function checkUpperEmpty(options: readonly string[]): Promise<void> {
  const upper = options.find((option) => option.startsWith("upperdir="))?.slice("upperdir=".length);
  if (upper === undefined) return;
  const names = await readdir(upper).catch((error: unknown) => {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  });
  if (names.length === 0) return;
  throw new BelljarError("MOUNT_UNSUPPORTED", `the upper directory ${upper} has files in it`, {
    facts: { path: upper },
    remedy: "Commit them to a layer first.",
  });
}

async function found(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
    throw new BelljarError("MOUNT_SOURCE_MISSING", `there is no root file system at ${JSON.stringify(path)}`, {
      facts: { source: path },
      cause: error,
    });
  }
}

function serialOf(prefix: string, path: string): string {
  return `${prefix}${createHash("sha256").update(path).digest("hex").slice(0, 18)}`;
}

export function decodeRoot(field: Field): RootState {
  return {
    kind: field.field("kind").oneOf(["disk", "layers"]),
    fileSystem: field.field("fileSystem").string({ pattern: /^[a-z0-9]{1,16}$/ }),
  };
}
