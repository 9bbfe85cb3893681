/**
 * The disks of a container at one instant: what was written until then stays as it is, in files that lie over one another, and what
 * comes after goes into a new one. Files of one disk are numbered: `w-ID.qcow2`, then `w-ID.1.qcow2`, each over the one before it.
 */
import { copyFile, link, mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BelljarError, hasErrno, isSystemError } from "../base/index.ts";
import type { DiskConfig } from "../hypervisor/interface.ts";
import { ownDisks } from "./disk-names.ts";
import { writeOverlay } from "./qcow2.ts";
import type { ContainerState } from "./state.ts";

const NAME = /^(.+?)(?:\.(\d+))?\.(raw|qcow2)$/;
/** A chain that is longer is no chain of ours. */
const CHAIN_MAX = 10_000;

/** Disks that belong to the containers and are written to. */
export function writtenDisks(containers: readonly ContainerState[]): readonly DiskConfig[] {
  return containers.flatMap(({ disks }) => ownDisks(disks).filter(({ readOnly }) => !readOnly));
}

/** The file that comes over this one. */
export function overlayPath(path: string): string {
  const [, stem, number = "0"] = NAME.exec(basename(path)) ?? [];
  if (stem === undefined) throw new BelljarError("INTERNAL", `${path} is no disk of a container`);
  return join(dirname(path), `${stem}.${Number(number) + 1}.qcow2`);
}

/** Puts an empty file over a disk's last one, in the same directory or in another one that has the chain; answers its path. */
export async function layOverlay(disk: DiskConfig, dir: string = dirname(disk.path)): Promise<string> {
  const below = join(dir, basename(disk.path));
  const path = overlayPath(below);
  // Whoever was about to use it has died.
  await rm(path, { force: true });
  const sizeBytes = await virtualBytes({ ...disk, path: below });
  try {
    await writeOverlay({ path, sizeBytes, backingFile: basename(below), backingFormat: disk.format });
  } catch (error) {
    await rm(path, { force: true });
    if (!isSystemError(error) || (error.code !== "ENOSPC" && error.code !== "EDQUOT")) throw error;
    throw new BelljarError("DISK_FULL", `no room is left for the disk ${path}`, { facts: { path }, cause: error });
  }
  return path;
}

/** The files of a disk, the last one first: it and all that lie below it. */
export async function chainOf({ path, format }: Pick<DiskConfig, "path" | "format">): Promise<readonly string[]> {
  const chain = [path];
  let isQcow2 = format === "qcow2";
  for (let at = path; isQcow2; ) {
    const backing = await backingOf(at);
    if (backing === undefined) break;
    if (chain.length >= CHAIN_MAX || basename(backing.name) !== backing.name) {
      throw new BelljarError("DISK_INVALID", `the disk ${path} lies over ${backing.name}, which is not ours`);
    }
    at = join(dirname(at), backing.name);
    chain.push(at);
    isQcow2 = backing.format === "qcow2";
  }
  return chain;
}

/** The same file in another directory: its data once, as long as both are on one file system. One that is there is left. */
export async function linkInto(path: string, dir: string): Promise<void> {
  const target = join(dir, basename(path));
  await mkdir(dir, { recursive: true, mode: 0o700 });
  try {
    await link(path, target);
  } catch (error) {
    if (hasErrno(error, "EEXIST")) return;
    if (!hasErrno(error, "EXDEV") && !hasErrno(error, "EPERM") && !hasErrno(error, "EMLINK")) throw error;
    await copyFile(path, target);
  }
}

/** What the names of all files of a disk begin with. */
export function diskStem(path: string): string | undefined {
  return NAME.exec(basename(path))?.[1];
}

/** Removes the files of a disk of its own; those that other disks lie over stay. */
export async function removeOwnDisk(path: string): Promise<void> {
  const name = NAME.exec(basename(path))?.[1];
  const files = await readdir(dirname(path)).catch((error: unknown) => {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  });
  for (const file of files) if (NAME.exec(file)?.[1] === name) await rm(join(dirname(path), file), { force: true });
}

async function virtualBytes({ path, format }: DiskConfig): Promise<number> {
  if (format === "raw") return (await stat(path)).size;
  return Number((await readHeader(path, 32)).readBigUInt64BE(24));
}

async function backingOf(path: string): Promise<{ readonly name: string; readonly format: string } | undefined> {
  const header = await readHeader(path, 4096);
  const offset = Number(header.readBigUInt64BE(8));
  const length = header.readUInt32BE(16);
  if (offset === 0 || length === 0) return undefined;
  if (offset + length > header.length) throw new BelljarError("DISK_INVALID", `the disk ${path} is not one of ours`);
  const name = header.toString("utf8", offset, offset + length);
  return { name, format: name.endsWith(".qcow2") ? "qcow2" : "raw" };
}

async function readHeader(path: string, bytes: number): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0);
    if (bytesRead >= 104 || (bytesRead >= 32 && bytes === 32)) {
      if (buffer.toString("latin1", 0, 4) === "QFI\xfb") return buffer;
    }
    throw new BelljarError("DISK_INVALID", `${path} is not a qcow2 image`, { facts: { path } });
  } finally {
    await file.close();
  }
}
