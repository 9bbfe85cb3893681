/**
 * Root file systems of containers. Mostly layers, read-only and shared by all containers that have them, under a disk of the
 * container's own or a tmpfs, joined by overlayfs; or one disk that is the root as it is.
 *
 * mount and umount are given many file systems at once, since starting a program takes long in an emulated guest.
 */
import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type DiskDirs, findDisk, findDisks, waitForSize } from "./disks.ts";
import { type FileSystem, loadFileSystems, mountLine } from "./file-systems.ts";
import type { RunTool } from "./tools.ts";
import { Turns } from "./turns.ts";

export interface RootDisk {
  readonly serial: string;
  readonly fileSystem: FileSystem;
}

/** Where a container writes: a disk (ext4), or memory. */
export type UpperLayer =
  /** `hasGrown`: the disk may be larger than the file system on it. */
  | { readonly kind: "disk"; readonly serial: string; readonly hasGrown: boolean }
  | { readonly kind: "tmpfs"; readonly sizeBytes: number };

export type RootfsDisks =
  /** The bottom layer first. */
  | { readonly kind: "layers"; readonly layers: readonly RootDisk[]; readonly upper: UpperLayer }
  | { readonly kind: "disk"; readonly disk: RootDisk };

export interface MountedRootfs {
  readonly path: string;
  /**
   * Where processes of the container do not see it: for files that are the container's but not in its root. In memory: a copy is told its
   * names by writing there, which on a disk has the kernel find blocks and write a journal.
   */
  readonly filesDir: string;
}

export interface RootfsMounter {
  /** Mounts below `dir`; leaves nothing when it fails. */
  mount(dir: string, disks: RootfsDisks): Promise<MountedRootfs>;
  /** Makes room in what `mount` mounted: the disk is larger already, or the tmpfs may have so much memory. */
  grow(dir: string, disks: RootfsDisks, sizeBytes: number): Promise<void>;
  /** Takes away whatever `mount` made, or had made when it failed; nothing there is success. */
  unmount(dir: string, disks: RootfsDisks): Promise<void>;
}

export interface MounterDeps extends DiskDirs {
  readonly runTool: RunTool;
  /** Layers are mounted below it, each under its serial number. */
  readonly layersDir: string;
}

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
        const rootfs = join(dir, "rootfs");
        await mkdir(rootfs);
        if (disks.kind === "disk") return await this.#mountDisk(dir, rootfs, disks.disk);
        return await this.#mountLayers(dir, rootfs, disks.layers, disks.upper, taken);
      } catch (error) {
        await this.#unmountAll(mountsIn(dir)).catch(() => {});
        await this.#releaseLayers(taken).catch(() => {});
        throw error;
      }
    });
  }

  async grow(dir: string, disks: RootfsDisks, sizeBytes: number): Promise<void> {
    if (disks.kind === "disk") return;
    const { upper } = disks;
    const target = join(dir, "disk");
    if (upper.kind === "tmpfs") {
      await this.#deps.runTool("busybox", ["mount", "-o", `remount,size=${sizeBytes}`, target]);
      return;
    }
    const node = await findDisk(upper.serial, this.#deps);
    await waitForSize(node, sizeBytes, this.#deps);
    await this.#deps.runTool("resize2fs", [node]);
  }

  unmount(dir: string, disks: RootfsDisks): Promise<void> {
    return this.#turns.take(async () => {
      await this.#unmountAll(mountsIn(dir));
      if (disks.kind === "layers") await this.#releaseLayers(serialsOf(disks.layers));
    });
  }

  async #mountDisk(dir: string, rootfs: string, { serial, fileSystem }: RootDisk): Promise<MountedRootfs> {
    await loadFileSystems([fileSystem], this.#deps);
    const device = await findDisk(serial, this.#deps);
    const filesDir = join(dir, "files");
    await mkdir(filesDir);
    await this.#mountAll(dir, [mountLine(device, rootfs, fileSystem, false), filesLine(filesDir)]);
    return { path: rootfs, filesDir };
  }

  async #mountLayers(
    dir: string,
    rootfs: string,
    layers: readonly RootDisk[],
    upper: UpperLayer,
    taken: string[],
  ): Promise<MountedRootfs> {
    const { layersDir } = this.#deps;
    await loadFileSystems(
      layers.map(({ fileSystem }) => fileSystem),
      this.#deps,
    );
    const fresh = [...new Map(layers.map((layer) => [layer.serial, layer])).values()].filter(
      ({ serial }) => !this.#users.has(serial),
    );
    const disk = join(dir, "disk");
    const filesDir = join(dir, "files");
    for (const each of [disk, filesDir]) await mkdir(each);
    const wanted = [...fresh.map(({ serial }) => serial), ...(upper.kind === "disk" ? [upper.serial] : [])];
    const nodes = await findDisks(wanted, this.#deps);
    for (const { serial } of fresh) await mkdir(join(layersDir, serial), { recursive: true, mode: 0o700 });
    for (const serial of serialsOf(layers)) {
      this.#users.set(serial, (this.#users.get(serial) ?? 0) + 1);
      taken.push(serial);
    }
    const lines = fresh.map(({ serial, fileSystem }, index) =>
      mountLine(nodes[index] ?? "", join(layersDir, serial), fileSystem, true),
    );
    const upperNode = nodes[fresh.length] ?? "";
    lines.push(
      upper.kind === "disk"
        ? mountLine(upperNode, disk, "ext4", false)
        : `tmpfs ${disk} tmpfs rw,nodev,mode=700,size=${upper.sizeBytes} 0 0`,
      filesLine(filesDir),
    );
    await this.#mountAll(dir, lines);
    if (upper.kind === "disk" && upper.hasGrown) await this.#deps.runTool("resize2fs", [upperNode]);
    const upperdir = join(disk, "upper");
    const workdir = join(disk, "work");
    await mkdir(upperdir, { recursive: true, mode: 0o755 });
    await mkdir(workdir, { recursive: true, mode: 0o700 });
    // Relative: the kernel takes a page of options at most, which whole paths would fill with fewer layers than an image may have.
    const lowerdir = layers
      .map(({ serial }) => serial)
      .reverse()
      .join(":");
    const options = `lowerdir=${lowerdir},upperdir=${upperdir},workdir=${workdir}`;
    await this.#deps.runTool("busybox", ["mount", "-t", "overlay", "-o", options, "overlay", rootfs], {
      cwd: layersDir,
    });
    return { path: rootfs, filesDir };
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

/** Containers may write into these files, and fill no more than this with them. */
const FILES_KIB = 1_024;

function filesLine(filesDir: string): string {
  return `tmpfs ${filesDir} tmpfs rw,nosuid,nodev,noexec,mode=755,size=${FILES_KIB}k 0 0`;
}

/** In the order in which they are unmounted. */
function mountsIn(dir: string): readonly string[] {
  return ["rootfs", "disk", "files"].map((name) => join(dir, name));
}

function serialsOf(layers: readonly RootDisk[]): readonly string[] {
  return [...new Set(layers.map(({ serial }) => serial))];
}

/** Mount points of a mountinfo table. The paths that the agent mounts on have no characters that the kernel would escape. */
function mountPoints(mountinfo: string): ReadonlySet<string> {
  return new Set(mountinfo.split("\n").map((line) => line.split(" ")[4] ?? ""));
}
