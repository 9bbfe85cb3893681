/**
 * Decides for each mount that was asked for how it is made: looks at its source on the host, finds or makes its volume, and says
 * which disks the VM needs. Nothing is plugged here, and nothing mounted on the host.
 */
import { createHash } from "node:crypto";
import { mkdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno, mountLimits } from "../base/index.ts";
import { checkHostUnused } from "../devices/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import {
  checkFileSystem,
  checkQcow2,
  detectFileSystem,
  READ_ONLY_FILE_SYSTEMS,
  readDirectVolume,
  type StoredVolume,
} from "../volumes/index.ts";
import { fitsCopy } from "./copied-tree.ts";
import { checkNotMounted, hostDevice, readHostMounts } from "./host-mounts.ts";
import { checkMounts } from "./mount-check.ts";
import type { MountConfig, MountedDisk, MountState } from "./mount-config.ts";

/** What mounts need of whoever has all sandboxes in view. */
export interface MountHost {
  /** Finds a volume by its name, or makes it. */
  volume(name: string, sizeBytes: number | undefined, signal: AbortSignal | undefined): Promise<StoredVolume>;
  /**
   * From now on nobody else may take these disks, until the sandbox's state says that it has them and the answer is disposed of.
   * @throws BelljarError `VOLUME_IN_USE`
   */
  hold(sandboxId: string, disks: readonly MountDisk[]): Disposable;
  /** Where storage plug-ins leave their mount-info files. */
  readonly directVolumesDir: string;
}

/** A disk that is there without the container: of a volume, or of the host. */
export interface MountDisk extends DiskConfig {
  /** For messages. */
  readonly what: string;
}

export interface PlannedMount {
  readonly state: MountState;
  readonly shared?: MountDisk | undefined;
  /** A disk of the container's own, to be made. */
  readonly own?: OwnDisk | undefined;
}

export interface OwnDisk {
  readonly sizeBytes: number;
  /** Directory of the host whose files it gets. */
  readonly filledFrom: string | undefined;
}

export interface MountPlan {
  readonly mounts: readonly PlannedMount[];
  /** The VM must be started so that it can share memory with whoever serves files. */
  readonly needsSharedMemory: boolean;
}

export interface PlanOptions {
  /** Targets of other mounts of the container. */
  readonly taken?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** @throws BelljarError of the first mount that cannot be made, naming it */
export async function planMounts(
  host: MountHost,
  configs: readonly MountConfig[],
  options: PlanOptions = {},
): Promise<MountPlan> {
  const mounts: PlannedMount[] = [];
  for (const config of checkMounts(configs, options.taken)) mounts.push(await planOne(host, config, options.signal));
  refuseTwoWays(mounts.flatMap(({ shared }) => (shared === undefined ? [] : [shared])));
  if (mounts.filter(({ state }) => state.how === "live").length > mountLimits.liveMax) {
    throw new BelljarError("INVALID_ARGUMENT", `a container has at most ${mountLimits.liveMax} live mounts`);
  }
  // A place in another mount is made after it, whatever the order in which they were named.
  const ordered = mounts.toSorted((a, b) => depth(a) - depth(b));
  return { mounts: ordered, needsSharedMemory: ordered.some(({ state }) => state.how === "live") };
}

function depth({ state }: PlannedMount): number {
  return state.destination.split("/").length;
}

async function planOne(host: MountHost, config: MountConfig, signal: AbortSignal | undefined): Promise<PlannedMount> {
  switch (config.type) {
    case "tmpfs":
      return { state: { ...baseOf(config), how: "memory", options: tmpfsOptions(config) } };
    case "volume":
      return await planVolume(host, config, signal);
    case "disk":
      return await planDisk(config, await sourceOf(config));
    case "bind":
      return await planBind(host, config);
  }
}

async function planVolume(
  host: MountHost,
  config: MountConfig,
  signal: AbortSignal | undefined,
): Promise<PlannedMount> {
  const { source = "", sizeBytes } = config;
  const base = baseOf(config);
  const disk = { fileSystem: "ext4", options: [], directory: "data", copyUp: config.noCopy !== true };
  if (source === "") {
    const own = { sizeBytes: sizeBytes ?? mountLimits.volumeDefaultBytes, filledFrom: undefined };
    return { state: { ...base, how: "disk", disk: { serial: "", ...disk } }, own };
  }
  const { path } = await host.volume(source, sizeBytes, signal);
  const shared = sharedDisk("v-", source, { path, format: "raw", readOnly: base.readOnly, what: `volume ${source}` });
  return { state: { ...base, how: "disk", disk: { serial: shared.serial, ...disk } }, shared };
}

async function planDisk(config: MountConfig, path: string, more: Partial<MountedDisk> = {}): Promise<PlannedMount> {
  const base = baseOf(config);
  const { format = "raw", options = [] } = config;
  if (format === "qcow2") await checkQcow2(path);
  if (format === "qcow2" && config.fileSystem === undefined) {
    throw new BelljarError("INVALID_ARGUMENT", `${path} is a qcow2 image: name its file system with fstype=`);
  }
  const fileSystem =
    config.fileSystem === undefined ? await detectFileSystem(path) : checkFileSystem(config.fileSystem);
  const readOnly = base.readOnly || READ_ONLY_FILE_SYSTEMS.has(fileSystem);
  await checkNotMounted([path], await readHostMounts(), readOnly);
  const device = await hostDevice(path);
  // It may also be part of another device of the host.
  if (device.isHostDevice === true && !readOnly) await checkHostUnused(path, readOnly);
  const shared = sharedDisk("b-", path, { path, format, readOnly, ...device, what: `disk ${path}` });
  const disk = { serial: shared.serial, fileSystem, options, ...more };
  return { state: { ...base, readOnly, options: bindOptions(readOnly), how: "disk", disk }, shared };
}

async function planBind(host: MountHost, config: MountConfig): Promise<PlannedMount> {
  const base = baseOf(config);
  const { target, source = "" } = config;
  // The guest has its own of these, and what the host has there means nothing in it.
  if (isSystemPath(source)) return { state: { ...base, how: target === source ? "none" : "guest" } };
  if (target === "/dev/shm" || (await isDevicePath(target))) return { state: { ...base, how: "none" } };
  const direct = await readDirectVolume(host.directVolumesDir, source);
  if (direct !== undefined) {
    const { device, fileSystem, fsGroup, readOnly } = direct;
    const asDisk: MountConfig = {
      type: "disk",
      source: device,
      target,
      fileSystem,
      options: direct.options,
      readOnly: readOnly || base.readOnly,
    };
    const planned = await planDisk(asDisk, await sourceOf(asDisk), { fsGroup, directVolume: source });
    return { ...planned, state: { ...planned.state, type: "bind", source } };
  }
  const path = await sourceOf(config);
  const info = await stat(path);
  if (info.isBlockDevice() || (info.isFile() && config.options?.includes(BLOCK_FILE) === true)) {
    const options = config.options?.filter((option) => option !== BLOCK_FILE);
    const { state, ...planned } = await planDisk(
      { type: "disk", source, target, readOnly: base.readOnly, options },
      path,
    );
    return { ...planned, state: { ...state, type: "bind" } };
  }
  if (!info.isFile() && !info.isDirectory()) {
    throw new BelljarError("MOUNT_UNSUPPORTED", `${source} is neither a file nor a directory nor a disk`, {
      facts: { source },
      remedy: "Sockets, pipes and character devices of the host do not reach into a VM.",
    });
  }
  const isFile = info.isFile();
  const how = config.how ?? (base.readOnly && (await fitsCopy(path)) ? "copy" : "live");
  if (how === "copy") {
    // So that what is too large is refused before anything is made.
    if (config.how !== undefined) await fitsCopy(path, { demand: true });
    return { state: { ...base, readOnly: true, options: bindOptions(true), how, isFile } };
  }
  if (how === "live") return { state: { ...base, how, isFile } };
  if (isFile) throw new BelljarError("INVALID_ARGUMENT", `${source} is a file, and a disk is made of a directory`);
  const disk = { serial: "", fileSystem: "ext4", options: [] };
  const sizeBytes = config.sizeBytes ?? mountLimits.volumeDefaultBytes;
  return { state: { ...base, how, disk }, own: { sizeBytes, filledFrom: path } };
}

/** What the source has for a file that is to be plugged as a block device. */
const BLOCK_FILE = "io.katacontainers.fs-opt.block_device=file";

function baseOf(config: MountConfig): Omit<MountState, "how"> {
  const { type, source = "", target, readOnly = false } = config;
  return { type, source, destination: target, readOnly, options: bindOptions(readOnly) };
}

function bindOptions(readOnly: boolean): readonly string[] {
  return ["rbind", "rprivate", ...(readOnly ? ["ro"] : [])];
}

function tmpfsOptions({ readOnly, sizeBytes, mode, options = [] }: MountConfig): readonly string[] {
  return [
    ...["noexec", "nosuid", "nodev"],
    ...(readOnly === true ? ["ro"] : []),
    ...(sizeBytes === undefined || sizeBytes === 0 ? [] : [`size=${sizeBytes}`]),
    ...(mode === undefined ? [] : [`mode=${mode.toString(8)}`]),
    ...options,
  ];
}

/** Serial numbers have 20 characters: 72 bits of a hash tell a sandbox's disks apart. */
function sharedDisk(prefix: string, key: string, disk: Omit<MountDisk, "serial">): MountDisk {
  return { serial: `${prefix}${createHash("sha256").update(key).digest("hex").slice(0, 18)}`, ...disk };
}

/** Once to write to and once only to read is not possible with one disk. */
function refuseTwoWays(disks: readonly MountDisk[]): void {
  for (const disk of disks) {
    const other = disks.find(({ serial, readOnly }) => serial === disk.serial && readOnly !== disk.readOnly);
    if (other === undefined) continue;
    throw new BelljarError("INVALID_ARGUMENT", `the ${disk.what} is mounted twice, once read-only and once not`);
  }
}

async function sourceOf({ source = "", createSource }: MountConfig): Promise<string> {
  try {
    return await realpath(source);
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
    if (createSource !== true) {
      throw new BelljarError("MOUNT_SOURCE_MISSING", `bind source path does not exist: ${source}`, {
        facts: { source },
        cause: error,
      });
    }
    // As docker does for -v.
    await mkdir(source, { recursive: true });
    return await realpath(source);
  }
}

/** By name: what is meant is the kernel's own, not what the host happens to have there. */
function isSystemPath(path: string): boolean {
  const normal = join(path);
  return ["/proc", "/sys"].some((root) => normal === root || normal.startsWith(`${root}/`));
}

/** Places of devices: /dev, and whatever below it is not a plain file on the host. */
async function isDevicePath(target: string): Promise<boolean> {
  if (target === "/dev") return true;
  if (!target.startsWith("/dev/")) return false;
  return await stat(target).then(
    (info) => !info.isFile(),
    () => true,
  );
}
