/** Files of this host that are copied from. Links are copied as links; what is no regular file is never opened for reading. */
import { type BigIntStats, constants } from "node:fs";
import { lstat, open, readdir, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno } from "../../base/index.ts";
import type { DirectoryEntry, FileInfo } from "../../sdk/index.ts";
import type { Source } from "./tree.ts";

export const hostSource: Source = {
  stat: async (path, follow) => {
    try {
      return await infoOf(path, await (follow ? stat(path, { bigint: true }) : lstat(path, { bigint: true })));
    } catch (cause) {
      throw hostError(path, cause);
    }
  },
  list: async (path) => {
    try {
      const names = (await readdir(path)).sort();
      const entries: DirectoryEntry[] = [];
      for (const name of names) {
        const child = join(path, name);
        entries.push({ name, info: await infoOf(child, await lstat(child, { bigint: true })) });
      }
      return entries;
    } catch (cause) {
      throw hostError(path, cause);
    }
  },
  read: async function* (path) {
    // What took the file's place since it was listed is found out: a link is not followed, a FIFO does not block.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW).catch(
      (cause: unknown) => {
        throw hostError(path, cause);
      },
    );
    try {
      if (!(await handle.stat()).isFile()) throw new BelljarError("NOT_A_FILE", `${path} is not a regular file`);
      yield* handle.createReadStream({ autoClose: false, highWaterMark: READ_BYTES });
    } finally {
      await handle.close();
    }
  },
};

const READ_BYTES = 256 * 1024;

export function hostError(path: string, cause: unknown): BelljarError {
  if (cause instanceof BelljarError) return cause;
  if (hasErrno(cause, "ENOENT")) return new BelljarError("FILE_NOT_FOUND", `${path} does not exist`);
  if (hasErrno(cause, "ENOTDIR")) return new BelljarError("NOT_A_DIRECTORY", `${path}: not a directory`);
  const error = BelljarError.from(cause);
  return error.reason === "INTERNAL" ? new BelljarError("INVALID_ARGUMENT", error.message, { cause }) : error;
}

async function infoOf(path: string, stats: BigIntStats): Promise<FileInfo> {
  const type = typeOf(stats);
  return {
    type,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    sizeBytes: Number(stats.size),
    modifiedAtMs: Number((stats.mtimeNs + 500n) / 1000n) / 1000,
    linkTarget: type === "link" ? await readlink(path) : undefined,
  };
}

function typeOf(stats: BigIntStats): FileInfo["type"] {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  if (stats.isSymbolicLink()) return "link";
  if (stats.isBlockDevice()) return "block-device";
  if (stats.isCharacterDevice()) return "character-device";
  return stats.isFIFO() ? "fifo" : "socket";
}
