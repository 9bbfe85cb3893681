/**
 * The disk that lies over a container's layers: an empty qcow2 image over an empty ext4, which is made once for each size and shared.
 * That one is linked into the directory of every sandbox that has such a disk: a sandbox's directory has all that it needs, and the
 * shared file goes with its last link.
 */
import { link, mkdir, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BelljarError, hasErrno, isSystemError, runTool } from "../base/index.ts";
import { syncDirectory, TEMPORARY_MARK } from "../store/index.ts";
import type { MakeDisk } from "./create.ts";
import { writeOverlay } from "./qcow2.ts";
import { makeDisk } from "./storage.ts";

/**
 * Makes every kind of a container's own disks. @throws BelljarError `DISK_FULL` and what `makeDisk` throws; the file is gone then.
 * @param blanksDir where the empty file systems are kept; what is in it can be made anew
 */
export function diskMaker(blanksDir: string): MakeDisk {
  return async (path, sizeBytes, options) => {
    if (options.format !== "qcow2") return await makeDisk(path, sizeBytes, options);
    const dir = dirname(path);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const name = `blank-${sizeBytes}.raw`;
    const blank = join(dir, name);
    try {
      await linkBlank(join(blanksDir, name), blank, sizeBytes, options.signal);
      await writeOverlay({ path, sizeBytes, backingFile: basename(blank), backingFormat: "raw" });
      await syncDirectory(dir);
    } catch (error) {
      await rm(path, { force: true });
      if (!isSystemError(error) || (error.code !== "ENOSPC" && error.code !== "EDQUOT")) throw error;
      throw new BelljarError("DISK_FULL", `no room is left for the disk ${path}`, { facts: { path }, cause: error });
    }
  };
}

/** Removes what a process that died while it made one has left; nobody may be making one. Answers the names. */
export async function sweepBlanks(blanksDir: string): Promise<string[]> {
  const names = await readdir(blanksDir).catch((error: unknown) => {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  });
  const left = names.filter((name) => name.startsWith(TEMPORARY_MARK));
  for (const name of left) await rm(join(blanksDir, name), { recursive: true, force: true });
  return left;
}

type Signal = AbortSignal | undefined;

async function linkBlank(shared: string, own: string, sizeBytes: number, signal: Signal): Promise<void> {
  for (;;) {
    try {
      return await link(shared, own);
    } catch (error) {
      if (hasErrno(error, "EEXIST")) return;
      // Another file system; its files cannot be linked from here.
      if (hasErrno(error, "EXDEV") || hasErrno(error, "EPERM")) {
        return void (await runTool("cp", ["--sparse=always", "--", shared, own], { signal }));
      }
      // A file can have only so many links.
      if (hasErrno(error, "EMLINK")) await rm(shared, { force: true });
      else if (!hasErrno(error, "ENOENT")) throw error;
      await makeBlank(shared, sizeBytes, signal);
    }
  }
}

/** Of several who make one at once, the first one's stays. */
async function makeBlank(path: string, sizeBytes: number, signal: Signal): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const dir = await mkdtemp(join(dirname(path), TEMPORARY_MARK));
  try {
    const made = join(dir, "blank");
    await makeDisk(made, sizeBytes, { empty: false, signal });
    const file = await open(made, "r");
    try {
      await file.chmod(0o400);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(made, path).catch((error: unknown) => {
      if (!hasErrno(error, "EEXIST")) throw error;
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
