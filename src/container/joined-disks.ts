/**
 * Files of a disk that lie over one another, joined into one. The joined file takes the name of the uppermost of them, and has its content: at
 * any instant the disk is whole, whichever of the two is found. Files that a checkpoint or a copy has are theirs under names of their own,
 * and are only read here.
 */
import { readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { DiskConfig } from "../hypervisor/interface.ts";
import { syncDirectory } from "../store/index.ts";
import { chainOf, diskStem } from "./frozen-disks.ts";
import { joinImages } from "./qcow2-join.ts";

/** What lies below the file that is written to, ready to be put in place. */
export interface PreparedJoin {
  readonly serial: string;
  /** The disk's files when it was prepared, the last one first, and which files those were: names come again when a disk goes back. */
  readonly chain: readonly string[];
  readonly inodes: readonly bigint[];
  readonly path: string;
}

/** Undefined when fewer than `least` files would be joined. A preparation that was never used is replaced. */
export async function prepareJoin(
  disk: DiskConfig,
  least: number,
  signal?: AbortSignal,
): Promise<PreparedJoin | undefined> {
  const chain = await chainOf(disk);
  const layers = chain.slice(1).filter((path) => path.endsWith(".qcow2"));
  const base = chain.at(-1);
  if (layers.length < least || base === undefined || layers.length !== chain.length - 2) return undefined;
  // A number that no overlay has: it goes with the disk's other files, should nobody come back.
  const path = join(dirname(disk.path), `${diskStem(disk.path)}.0.qcow2`);
  await rm(path, { force: true });
  const inodes = await inodesOf(chain);
  await joinImages({ layers, path, backingFile: basename(base), signal });
  return { serial: disk.serial, chain, inodes, path };
}

/** Whoever writes to the disk has the former file open, or this one: both say the same. Answers its path; undefined when it came too late. */
export async function placeJoin(disk: DiskConfig, { chain, inodes, path }: PreparedJoin): Promise<string | undefined> {
  const [, target] = chain;
  const now = await chainOf(disk);
  if (target === undefined || !isDeepStrictEqual([now, await inodesOf(now)], [chain, inodes])) {
    await rm(path, { force: true });
    return undefined;
  }
  await rename(path, target);
  await syncDirectory(dirname(target));
  return target;
}

/** Numbers of inodes, which are given again, and when the files were written to; to the first one somebody writes. */
async function inodesOf(paths: readonly string[]): Promise<readonly bigint[]> {
  const stats = await Promise.all(paths.map((path) => stat(path, { bigint: true })));
  return stats.flatMap(({ ino, mtimeNs }, index) => (index === 0 ? [ino] : [ino, mtimeNs]));
}

/** Removes the disk's files that it does not lie over any more; nobody may be about to lay another one over it. */
export async function removeUnused(disk: DiskConfig): Promise<void> {
  const used = new Set((await chainOf(disk)).map((path) => basename(path)));
  const dir = dirname(disk.path);
  const stem = diskStem(disk.path);
  for (const name of await readdir(dir)) {
    if (diskStem(name) === stem && !used.has(name)) await rm(join(dir, name), { force: true });
  }
}
