/**
 * The one durable writer. A reader sees the old content or the new, never anything else, whatever dies when: a temporary
 * file in the same directory, write, fsync, rename, fsync of the directory.
 */
import { randomBytes } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { type Disk, systemDisk } from "./disk.ts";

/** Temporary files carry this in their name; what has it and is found at start-up belongs to nobody. */
export const TEMPORARY_MARK = ".belljar-tmp-";

export interface WriteOptions {
  /** Permission bits; 0600 unless told. */
  readonly mode?: number;
  readonly disk?: Disk;
}

/**
 * @throws the system error, with no temporary file left. The file is as it was before, unless the last step failed (the
 * fsync of the directory): then the new content is in place, but a power loss may bring the old one back.
 */
export async function writeFileDurably(
  path: string,
  data: string | Uint8Array,
  options: WriteOptions = {},
): Promise<void> {
  const disk = options.disk ?? systemDisk;
  const bytes = typeof data === "string" ? Buffer.from(data, "utf8") : data;
  const temporary = join(dirname(path), `.${basename(path)}${TEMPORARY_MARK}${randomBytes(6).toString("hex")}`);
  const file = await disk.create(temporary, options.mode ?? 0o600);
  try {
    try {
      await file.write(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await disk.rename(temporary, path);
  } catch (error) {
    await removeLeftover(temporary, disk);
    throw error;
  }
  await disk.syncDirectory(dirname(path));
}

/** Removes a file and makes its absence durable. @throws the system error; `ENOENT` when there is none. */
export async function removeFileDurably(path: string, disk: Disk = systemDisk): Promise<void> {
  await disk.unlink(path);
  await disk.syncDirectory(dirname(path));
}

/** Renames a file or directory whose content is already synced, and makes the new name durable. */
export async function publish(temporary: string, path: string, disk: Disk = systemDisk): Promise<void> {
  await disk.rename(temporary, path);
  await disk.syncDirectory(dirname(path));
}

export async function syncDirectory(path: string, disk: Disk = systemDisk): Promise<void> {
  await disk.syncDirectory(path);
}

/** Removes the temporary files that a crash left in a directory nobody else writes to now; returns their names. */
export async function sweepTemporaryFiles(directory: string, disk: Disk = systemDisk): Promise<string[]> {
  const names = (await disk.list(directory)).filter((name) => name.includes(TEMPORARY_MARK));
  for (const name of names) await disk.unlink(join(directory, name));
  if (names.length > 0) await disk.syncDirectory(directory);
  return names;
}

/** After a failure: a second one here must not hide the first, and start-up sweeps what is left. */
async function removeLeftover(temporary: string, disk: Disk): Promise<void> {
  try {
    await disk.unlink(temporary);
  } catch {
    // The caller gets the first error.
  }
}
