/** Files and directories as the host is told of them. */
import { isUtf8 } from "node:buffer";
import type { BigIntStats } from "node:fs";
import { lstat, opendir, readlink } from "node:fs/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { fileLimits } from "../src/base/limits.ts";
import { type DirectoryEntrySchema, type FileInfoSchema, FileType } from "../src/protocol/index.ts";
import { shown } from "./file-errors.ts";
import type { Place } from "./file-walk.ts";

export type FileInfo = MessageInitShape<typeof FileInfoSchema>;

export interface Page {
  readonly entries: MessageInitShape<typeof DirectoryEntrySchema>[];
  readonly more: boolean;
  readonly unnameable: number;
}

export function infoOf(stats: BigIntStats, linkTarget = ""): FileInfo {
  return {
    type: typeOf(stats),
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    size: stats.size,
    // To the microsecond: what was set as a fraction of seconds is a little less than what was meant.
    modifiedMs: Number((stats.mtimeNs + 500n) / 1000n) / 1000,
    linkTarget,
  };
}

/** @throws BelljarError `FILE_NOT_FOUND` when nothing is there */
export async function placeInfo(path: string, place: Place): Promise<FileInfo> {
  const { parent, name, target } = place;
  if (target === undefined) throw missing(path);
  if (!target.stats.isSymbolicLink()) return infoOf(target.stats);
  return infoOf(target.stats, await readlink(`${parent?.path}/${name}`));
}

export function missing(path: string): BelljarError {
  return new BelljarError("FILE_NOT_FOUND", `${shown(path)}: there is no such file or directory`);
}

/** Far below what a frame holds; an entry without its name and what its link leads to has about so many bytes. */
const PAGE_MAX_BYTES = 1024 * 1024;
const ENTRY_BYTES = 64;

/** One page, in memory of one page: all entries are passed over, and the first ones after `after` are kept. */
export async function listPage(path: string, directory: string, after: string, maxEntries: number): Promise<Page> {
  const wanted = Math.min(Math.max(1, maxEntries), fileLimits.pageMaxEntries);
  const first = Buffer.from(after);
  let names: Buffer[] = [];
  let seen = 0;
  let unnameable = 0;
  let more = false;
  const trim = (): void => {
    names.sort(Buffer.compare);
    more ||= names.length > wanted;
    names = names.slice(0, wanted);
  };
  for await (const { name } of await opendir(directory, { encoding: "latin1", bufferSize: 256 })) {
    seen += 1;
    if (seen > fileLimits.directoryMaxEntries) {
      throw new BelljarError("FILE_TOO_LARGE", `${shown(path)}: more than ${fileLimits.directoryMaxEntries} entries`);
    }
    // Names may be any bytes; as latin1 each is a character.
    const bytes = Buffer.from(name, "latin1");
    if (!isUtf8(bytes)) unnameable += 1;
    else if (Buffer.compare(bytes, first) > 0) names.push(bytes);
    if (names.length >= 2 * wanted + 64) trim();
  }
  trim();
  const entries: Page["entries"] = [];
  let size = 0;
  for (const bytes of names) {
    // With long names and links a page may have fewer entries.
    if (size > PAGE_MAX_BYTES) return { entries, more: true, unnameable };
    const name = bytes.toString();
    const info = await entryInfo(`${directory}/${name}`);
    // Gone since, or not the same any more: the next look will see.
    if (info === undefined) continue;
    entries.push({ name, info });
    size += bytes.length + Buffer.byteLength(info.linkTarget ?? "") + ENTRY_BYTES;
  }
  return { entries, more, unnameable };
}

async function entryInfo(path: string): Promise<FileInfo | undefined> {
  try {
    const stats = await lstat(path, { bigint: true });
    return infoOf(stats, stats.isSymbolicLink() ? await readlink(path) : "");
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "EINVAL")) return undefined;
    throw error;
  }
}

function typeOf(stats: BigIntStats): FileType {
  if (stats.isFile()) return FileType.REGULAR;
  if (stats.isDirectory()) return FileType.DIRECTORY;
  if (stats.isSymbolicLink()) return FileType.LINK;
  if (stats.isBlockDevice()) return FileType.BLOCK_DEVICE;
  if (stats.isCharacterDevice()) return FileType.CHARACTER_DEVICE;
  return stats.isFIFO() ? FileType.FIFO : FileType.SOCKET;
}
