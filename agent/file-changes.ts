/** Changes of files in a container that are one step each, at places that are held while they are made. */
import {
  chmod,
  chown,
  lchown,
  lstat,
  lutimes,
  mkdir,
  opendir,
  rename,
  rmdir,
  symlink,
  unlink,
  utimes,
} from "node:fs/promises";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { fileLimits } from "../src/base/limits.ts";
import { shown } from "./file-errors.ts";
import { missing } from "./file-info.ts";
import { atPath, type HeldFile, type HoldRoot, holdFile, letGo, type Place } from "./file-walk.ts";
import { randomHex } from "./random.ts";

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** What is undefined stays as it is. */
export interface Attributes {
  readonly mode?: number | undefined;
  readonly owner?: Owner | undefined;
  readonly modifiedMs?: number | undefined;
}

/** Beside the wanted name until it is complete; a name nobody else would choose. */
export function temporaryName(id: string): string {
  return `.belljar-${id}`;
}

/** `directory/name` for calls that do not follow the last component. @throws BelljarError `PATH_INVALID` for the root itself */
export function entryPath(path: string, place: Place): string {
  if (place.parent !== undefined) return `${place.parent.path}/${place.name}`;
  throw new BelljarError("PATH_INVALID", `${shown(path)}: this is the container's root itself`);
}

export async function makeDirectory(
  root: HoldRoot,
  path: string,
  parents: boolean,
  attributes: Attributes,
): Promise<void> {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  // With parents each prefix is a walk of its own: what is a link by then is followed inside the root.
  const first = parents ? 1 : names.length;
  for (let length = first; length < names.length; length += 1) {
    const above = names.slice(0, length).join("/");
    await makeOne(root, above, true, {}).catch((error: unknown) => {
      if (!(error instanceof BelljarError) || error.reason !== "FILE_EXISTS") throw error;
      throw new BelljarError("NOT_A_DIRECTORY", `${shown(above)}: it is not a directory`);
    });
  }
  await makeOne(root, names.join("/"), parents, attributes);
}

async function makeOne(root: HoldRoot, path: string, mayExist: boolean, attributes: Attributes): Promise<void> {
  await atPath(root, path, { follow: true }, async (place) => {
    if (place.target?.stats.isDirectory() === true && mayExist) return;
    if (place.target !== undefined) throw new BelljarError("FILE_EXISTS", `${shown(path)}: it exists already`);
    const entry = entryPath(path, place);
    try {
      await mkdir(entry, { mode: 0o755 });
    } catch (error) {
      if (mayExist && hasErrno(error, "EEXIST")) return;
      throw error;
    }
    await changeEntry(entry, attributes);
  });
}

export async function makeLink(root: HoldRoot, path: string, target: string, attributes: Attributes): Promise<void> {
  if (target === "" || target.includes("\0") || Buffer.byteLength(target) >= fileLimits.pathMaxBytes) {
    throw new BelljarError("PATH_INVALID", `${shown(path)}: what the link is to lead to is empty or too long`);
  }
  await atPath(root, path, { follow: false }, async (place) => {
    const entry = entryPath(path, place);
    const temporary = `${place.parent?.path}/${temporaryName(randomHex(6))}`;
    await symlink(target, temporary);
    try {
      await changeEntry(temporary, { ...attributes, mode: undefined });
      await rename(temporary, entry);
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw error;
    }
  });
}

export async function renameFile(root: HoldRoot, path: string, newPath: string): Promise<void> {
  await atPath(root, path, { follow: false }, (from) =>
    atPath(root, newPath, { follow: false }, async (to) => {
      if (from.target === undefined) throw missing(path);
      await rename(entryPath(path, from), entryPath(newPath, to));
    }),
  );
}

export async function setAttributes(root: HoldRoot, path: string, attributes: Attributes): Promise<void> {
  await atPath(root, path, { follow: false }, async (place) => {
    if (place.target === undefined) throw missing(path);
    if (place.parent === undefined) await changeHeld(place.target.path, attributes);
    else await changeEntry(entryPath(path, place), attributes);
  });
}

export async function removeFile(root: HoldRoot, path: string, recursive: boolean, signal: AbortSignal): Promise<void> {
  await atPath(root, path, { follow: false }, async (place) => {
    if (place.target === undefined) throw missing(path);
    const entry = entryPath(path, place);
    if (!place.target.stats.isDirectory()) await unlink(entry);
    else if (recursive) await removeTree(path, entry, 1, signal);
    else await rmdir(entry);
  });
}

/** Names below a held directory only; what becomes something else meanwhile is an error, and nothing else. */
async function removeTree(path: string, entry: Buffer | string, depth: number, signal: AbortSignal): Promise<void> {
  if (depth > fileLimits.treeDepthMax) {
    const message = `${shown(path)}: more than ${fileLimits.treeDepthMax} directories in each other`;
    throw new BelljarError("PATH_INVALID", message);
  }
  const held = await holdFile(entry);
  try {
    // Names may be any bytes; as latin1 each is a character.
    for await (const { name } of await opendir(held.path, { encoding: "latin1" })) {
      signal.throwIfAborted();
      await removeEntry(path, held, Buffer.from(`${held.path}/${name}`, "latin1"), depth, signal);
    }
  } finally {
    await letGo(held);
  }
  await rmdir(entry);
}

async function removeEntry(
  path: string,
  directory: HeldFile,
  entry: Buffer,
  depth: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    await unlink(entry);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return;
    if (!hasErrno(error, "EISDIR")) throw error;
    // What is mounted there belongs to somebody else.
    if ((await lstat(entry, { bigint: true })).dev !== directory.stats.dev) {
      throw new BelljarError("FILE_BUSY", `${shown(path)}: something is mounted in it`);
    }
    await removeTree(path, entry, depth + 1, signal);
  }
}

/** Of what has the name now, a link included. The directory in the path is held, so it is in the container whatever it is. */
async function changeEntry(entry: string, attributes: Attributes): Promise<void> {
  const { mode, owner, modifiedMs } = attributes;
  if (mode === undefined && owner === undefined && modifiedMs === undefined) return;
  const held = await holdFile(entry);
  try {
    if (!held.stats.isSymbolicLink()) {
      await changeHeld(held.path, attributes);
      return;
    }
    if (owner !== undefined) await lchown(entry, owner.uid, owner.gid);
    if (modifiedMs !== undefined) await lutimes(entry, modifiedMs / 1000, modifiedMs / 1000);
  } finally {
    await letGo(held);
  }
}

/** The owner first: a change of owner takes setuid and setgid away. */
export async function changeHeld(path: string, { mode, owner, modifiedMs }: Attributes): Promise<void> {
  if (owner !== undefined) await chown(path, owner.uid, owner.gid);
  if (mode !== undefined) await chmod(path, mode & 0o7777);
  if (modifiedMs !== undefined) await utimes(path, modifiedMs / 1000, modifiedMs / 1000);
}
