/**
 * Root file systems of containers: EROFS layers, read-only and shared by all containers that have them, under an ext4 disk of
 * the container's own, joined by overlayfs.
 *
 * mount and umount are given many file systems at once, since starting a program takes long in an emulated guest.
 */
import { mkdir, open, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";
import { sandboxLimits } from "../src/base/limits.ts";
import type { RunTool } from "./tools.ts";
import { Turns } from "./turns.ts";

export interface RootfsDisks {
  /** Serial numbers, the bottom layer first. */
  readonly layers: readonly string[];
  readonly writable: string;
}

export interface MountedRootfs {
  readonly path: string;
  /** On the container's own disk, where its processes do not see it: for files that are the container's but not in its root. */
  readonly filesDir: string;
}

export interface RootfsMounter {
  /** Mounts below `dir`; leaves nothing when it fails. */
  mount(dir: string, disks: RootfsDisks): Promise<MountedRootfs>;
  /** Takes away whatever `mount` made, or had made when it failed; nothing there is success. */
  unmount(dir: string, disks: RootfsDisks): Promise<void>;
}

export interface MounterDeps {
  readonly runTool: RunTool;
  readonly sysDir: string;
  readonly devDir: string;
  /** Layers are mounted below it, each under its serial number. */
  readonly layersDir: string;
}

/** Between two looks for a disk that has just been plugged. */
const LOOK_AGAIN_MS = 10;
const SERIAL = /^[a-z0-9-]{1,20}$/;

export class OverlayMounter implements RootfsMounter {
  readonly #deps: MounterDeps;
  /** Containers that use a layer, by its serial number; present while it is mounted. */
  readonly #users = new Map<string, number>();
  /** Mounts change one at a time: two containers may want the same layer. */
  readonly #turns = new Turns();

  constructor(deps: MounterDeps) {
    this.#deps = deps;
  }

  mount(dir: string, disks: RootfsDisks): Promise<MountedRootfs> {
    return this.#turns.take(async () => {
      const taken: string[] = [];
      try {
        const lines: string[] = [];
        for (const serial of new Set(disks.layers)) {
          if (!this.#users.has(serial)) {
            const device = await findDisk(serial, this.#deps);
            const target = join(this.#deps.layersDir, serial);
            await mkdir(target, { recursive: true, mode: 0o700 });
            lines.push(`${device} ${target} erofs ro,nodev 0 0`);
          }
          this.#users.set(serial, (this.#users.get(serial) ?? 0) + 1);
          taken.push(serial);
        }
        const disk = join(dir, "disk");
        const rootfs = join(dir, "rootfs");
        await mkdir(disk);
        await mkdir(rootfs);
        lines.push(`${await findDisk(disks.writable, this.#deps)} ${disk} ext4 rw,noatime,nodev 0 0`);
        await this.#mountAll(dir, lines);
        const upper = join(disk, "upper");
        const work = join(disk, "work");
        await mkdir(upper, { recursive: true, mode: 0o755 });
        await mkdir(work, { recursive: true, mode: 0o700 });
        const lower = disks.layers.map((serial) => join(this.#deps.layersDir, serial)).reverse();
        const options = `lowerdir=${lower.join(":")},upperdir=${upper},workdir=${work}`;
        await this.#deps.runTool("busybox", ["mount", "-t", "overlay", "-o", options, "overlay", rootfs]);
        return { path: rootfs, filesDir: join(disk, "files") };
      } catch (error) {
        await this.#unmountAll([join(dir, "rootfs"), join(dir, "disk")]).catch(() => {});
        await this.#releaseLayers(taken).catch(() => {});
        throw error;
      }
    });
  }

  unmount(dir: string, disks: RootfsDisks): Promise<void> {
    return this.#turns.take(async () => {
      await this.#unmountAll([join(dir, "rootfs"), join(dir, "disk")]);
      await this.#releaseLayers([...new Set(disks.layers)]);
    });
  }

  async #mountAll(dir: string, lines: readonly string[]): Promise<void> {
    const table = join(dir, "mounts");
    await writeFile(table, `${lines.join("\n")}\n`);
    await this.#deps.runTool("busybox", ["mount", "-a", "-T", table]);
  }

  async #releaseLayers(serials: readonly string[]): Promise<void> {
    const unused: string[] = [];
    for (const serial of serials) {
      const count = this.#users.get(serial) ?? 0;
      if (count > 1) this.#users.set(serial, count - 1);
      else {
        this.#users.delete(serial);
        unused.push(join(this.#deps.layersDir, serial));
      }
    }
    await this.#unmountAll(unused);
  }

  /** Unmounts those of the directories that are mounted, in this order, and removes them. */
  async #unmountAll(dirs: readonly string[]): Promise<void> {
    const mounted = mountPoints(await readFile("/proc/self/mountinfo", "utf8"));
    const targets = dirs.filter((dir) => mounted.has(dir));
    if (targets.length > 0) {
      // Something may still hold a file of a container that was just killed; its mount goes when that does.
      await this.#deps
        .runTool("busybox", ["umount", ...targets])
        .catch(() => this.#deps.runTool("busybox", ["umount", "-l", ...targets]));
    }
    for (const dir of dirs) await rmdir(dir).catch(() => {});
  }
}

/** Mount points of a mountinfo table. The paths that the agent mounts on have no characters that the kernel would escape. */
function mountPoints(mountinfo: string): ReadonlySet<string> {
  return new Set(mountinfo.split("\n").map((line) => line.split(" ")[4] ?? ""));
}

/**
 * The device node of the disk with this serial number; waits for one that has just been plugged.
 * @throws BelljarError `AGENT_FAILED`, `INVALID_ARGUMENT`
 */
export async function findDisk(
  serial: string,
  dirs: { readonly sysDir: string; readonly devDir: string },
  timeoutMs: number = sandboxLimits.diskTimeoutMs,
): Promise<string> {
  if (!SERIAL.test(serial))
    throw new BelljarError("INVALID_ARGUMENT", "a disk has a serial number that no disk can have");
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const name = await findBlockDevice(serial, dirs.sysDir);
    if (name !== undefined) {
      const node = join(dirs.devDir, name);
      // One that is just being plugged or unplugged has a node already, or still, behind which there is no disk.
      const file = await open(node, "r").catch(() => undefined);
      await file?.close();
      if (file !== undefined) return node;
    }
    if (performance.now() >= deadlineMs) {
      throw new BelljarError(
        "AGENT_FAILED",
        `no disk with the serial number ${serial} appeared within ${timeoutMs} ms`,
      );
    }
    await sleep(LOOK_AGAIN_MS);
  }
}

async function findBlockDevice(serial: string, sysDir: string): Promise<string | undefined> {
  const block = join(sysDir, "block");
  for (const name of await readdir(block)) {
    if (!/^(sd|vd)[a-z]+$/.test(name)) continue;
    // SCSI: page 0x80, whose header has four bytes. virtio-blk: an attribute.
    const page = await readFile(join(block, name, "device/vpd_pg80")).catch(() => undefined);
    const found =
      page?.toString("latin1", 4) ?? (await readFile(join(block, name, "serial"), "latin1").catch(() => ""));
    if (found.trim() === serial) return name;
  }
  return undefined;
}
