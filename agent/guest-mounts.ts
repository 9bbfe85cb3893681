/**
 * What containers have mounted beside their root file systems, where it lies in the guest: disks with file systems, each mounted
 * once for all containers that have it, and copies of the host's files. Containers get binds of it.
 *
 * A disk is never let go of while something still writes to it: what cannot be unmounted is an error, and the host keeps it plugged.
 */
import { chmod, chown, mkdir, readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { mountLimits, sandboxLimits } from "../src/base/limits.ts";
import { findDisk } from "./disks.ts";
import { loadFileSystems } from "./file-systems.ts";
import { atPath, directoryAt } from "./file-walk.ts";
import { applyFsGroup } from "./fs-group.ts";
import type { RunTool } from "./tools.ts";
import { Turns } from "./turns.ts";

export interface DiskMount {
  readonly serial: string;
  readonly fileSystem: string;
  readonly options: readonly string[];
  readonly readOnly: boolean;
  /** Directory of the file system that is meant; empty for the whole. */
  readonly directory: string;
  /** Path in the container's root file system; empty for none. */
  readonly copyUpFrom: string;
  readonly fsGroup: number | undefined;
  readonly fsGroupAlways: boolean;
}

/** A directory of the host, by the tag of its device; or the one file that is in it. */
export interface LiveMount {
  readonly tag: string;
  readonly readOnly: boolean;
  readonly isFile: boolean;
}

export interface GuestMountsDeps {
  readonly runTool: RunTool;
  readonly sysDir: string;
  readonly devDir: string;
  /** Disks are mounted below it, each under its serial number. */
  readonly disksDir: string;
}

const FILE_SYSTEM = /^[a-z0-9]{1,16}$/;
const OPTION = /^[a-zA-Z0-9_.:=/@%+-]{1,256}$/;
const DIRECTORY = /^(?:[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,62})?$/;
/**
 * Without the second the kernel writes zeros over the tables of an empty disk, and a sparse file is sparse no more; without the third it
 * reads all maps of what is free, some time after the mount, in each copy of the guest.
 */
const EXT4_OPTIONS = ["noatime", "noinit_itable", "no_prefetch_block_bitmaps"];
/** Between two tries to unmount. */
const TRY_AGAIN_MS = 50;

export class GuestMounts {
  readonly #deps: GuestMountsDeps;
  /** Containers that have a disk, by its serial number; present while it is mounted. */
  readonly #users = new Map<string, Set<string>>();
  readonly #turns = new Turns();

  constructor(deps: GuestMountsDeps) {
    this.#deps = deps;
  }

  /** Answers where it lies. @throws BelljarError `AGENT_FAILED`, `INVALID_ARGUMENT`; the container does not have it then */
  take(containerId: string, disk: DiskMount, rootfs: string): Promise<string> {
    check(disk);
    return this.#turns.take(async () => {
      const { serial } = disk;
      const place = join(this.#deps.disksDir, serial);
      const users = this.#users.get(serial);
      if (users === undefined) await this.#mount(disk, place);
      this.#users.set(serial, new Set([...(users ?? []), containerId]));
      try {
        const lies = await this.#directory(disk, place, rootfs);
        if (disk.fsGroup !== undefined && !disk.readOnly) await applyFsGroup(lies, disk.fsGroup, disk.fsGroupAlways);
        return lies;
      } catch (error) {
        await this.#release(containerId, serial).catch(() => {});
        throw error;
      }
    });
  }

  /** What is on a disk is written before this ends. A disk that the container does not have is success. */
  release(containerId: string, serial: string): Promise<void> {
    return this.#turns.take(() => this.#release(containerId, serial));
  }

  /** Mounts a directory of the host at a place of the agent's. Answers where what is meant lies. */
  async share(place: string, { tag, readOnly, isFile }: LiveMount): Promise<string> {
    if (!/^[a-z0-9-]{1,36}$/.test(tag))
      throw new BelljarError("INVALID_ARGUMENT", "a directory has a tag that cannot be");
    await mkdir(place, { recursive: true, mode: 0o700 });
    await this.#deps.runTool("busybox", ["modprobe", "virtiofs"]);
    const options = `${readOnly ? "ro" : "rw"},nodev`;
    const untilMs = performance.now() + sandboxLimits.diskTimeoutMs;
    for (;;) {
      try {
        await this.#deps.runTool("busybox", ["mount", "-t", "virtiofs", "-o", options, tag, place]);
        return isFile ? join(place, "file") : place;
      } catch (cause) {
        // A device that has just been plugged takes its time.
        if (performance.now() > untilMs) {
          await rmdir(place).catch(() => {});
          throw new BelljarError(
            "AGENT_FAILED",
            `the shared directory ${tag} cannot be mounted: ${BelljarError.from(cause).message}`,
            { cause },
          );
        }
        await sleep(TRY_AGAIN_MS);
      }
    }
  }

  /** Nothing there is success. */
  async unshare(place: string): Promise<void> {
    if (await isMounted(place)) await this.#unmount(place);
  }

  async #release(containerId: string, serial: string): Promise<void> {
    const users = this.#users.get(serial);
    if (users?.has(containerId) !== true) return;
    if (users.size > 1) {
      users.delete(containerId);
      return;
    }
    await this.#unmount(join(this.#deps.disksDir, serial));
    this.#users.delete(serial);
  }

  async #mount({ serial, fileSystem, options, readOnly }: DiskMount, place: string): Promise<void> {
    const device = await findDisk(serial, this.#deps);
    await loadFileSystems([fileSystem], this.#deps);
    await mkdir(place, { recursive: true, mode: 0o700 });
    const all = [readOnly ? "ro" : "rw", "nodev", ...(fileSystem === "ext4" ? EXT4_OPTIONS : []), ...options].join(",");
    try {
      await this.#deps.runTool("busybox", ["mount", "-t", fileSystem, "-o", all, device, place]);
    } catch (cause) {
      await rmdir(place).catch(() => {});
      const hint =
        readOnly && fileSystem === "ext4" ? "; one that was not unmounted must be mounted read-write once" : "";
      throw new BelljarError(
        "AGENT_FAILED",
        `the ${fileSystem} file system of the disk ${serial} cannot be mounted${hint}`,
        {
          cause,
        },
      );
    }
  }

  async #unmount(place: string): Promise<void> {
    const untilMs = performance.now() + mountLimits.unmountTimeoutMs;
    for (;;) {
      try {
        await this.#deps.runTool("busybox", ["umount", place]);
        break;
      } catch (cause) {
        if (performance.now() > untilMs) {
          throw new BelljarError("AGENT_FAILED", `${place} is still in use`, { cause });
        }
        await sleep(TRY_AGAIN_MS);
      }
    }
    await rmdir(place).catch(() => {});
  }

  /** The directory that is meant; one that is made has all its files when it appears. */
  async #directory(disk: DiskMount, place: string, rootfs: string): Promise<string> {
    if (disk.directory === "") return place;
    const lies = join(place, disk.directory);
    const found = await stat(lies).catch(() => undefined);
    if (found?.isDirectory() === true) return lies;
    if (disk.readOnly) throw new BelljarError("AGENT_FAILED", "the disk is read-only, and there is nothing on it yet");
    const making = `${lies}.new`;
    await rm(making, { recursive: true, force: true });
    await mkdir(making, { mode: 0o755 });
    const isFilled = disk.copyUpFrom !== "" && (await this.#copyUp(rootfs, disk.copyUpFrom, making));
    if (isFilled) await this.#deps.runTool("busybox", ["sync", "-f", making]);
    await rename(making, lies);
    return lies;
  }

  /** Found without leaving the root file system, whatever links an image has there. False when there is nothing to copy. */
  async #copyUp(rootfs: string, path: string, into: string): Promise<boolean> {
    try {
      return await atPath(directoryAt(rootfs), path, { follow: true }, async ({ target }) => {
        if (target?.stats.isDirectory() !== true) return false;
        const from = `/proc/${process.pid}/fd/${target.fd}`;
        await this.#deps.runTool("busybox", ["cp", "-a", `${from}/.`, into]);
        await chown(into, Number(target.stats.uid), Number(target.stats.gid));
        await chmod(into, Number(target.stats.mode & 0o7777n));
        return true;
      });
    } catch (error) {
      const { reason } = BelljarError.from(error);
      if (reason !== "FILE_NOT_FOUND" && reason !== "NOT_A_DIRECTORY") throw error;
      return false;
    }
  }
}

/** The paths that the agent mounts on have no characters that the kernel would escape. */
async function isMounted(place: string): Promise<boolean> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  return lines.some((line) => line.split(" ")[4] === place);
}

function check({ fileSystem, options, directory }: DiskMount): void {
  const isRight =
    FILE_SYSTEM.test(fileSystem) && options.every((each) => OPTION.test(each)) && DIRECTORY.test(directory);
  if (isRight && options.length <= mountLimits.optionsMax) return;
  throw new BelljarError("INVALID_ARGUMENT", "a disk has a file system, option or directory that cannot be");
}
