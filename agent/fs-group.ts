/**
 * Gives a volume to a group: everything in it belongs to the group, which may read and write it, and what is made in its directories
 * will. Links are changed themselves, never what they lead to; a process that changes names meanwhile gains nothing by it.
 */
import { constants } from "node:fs";
import { chmod, chown, lchown, opendir } from "node:fs/promises";
import { join } from "node:path";
import { hasErrno } from "../src/base/errors.ts";
import { type HeldFile, holdFile, letGo } from "./file-walk.ts";

const { S_IRGRP, S_IWGRP, S_IXGRP } = constants;
const SETGID = 0o2000;
const FILE_BITS = S_IRGRP | S_IWGRP;
const DIRECTORY_BITS = FILE_BITS | S_IXGRP | SETGID;

/** @param always even when the top has the group and the permissions already */
export async function applyFsGroup(top: string, gid: number, always: boolean): Promise<void> {
  const held = await holdFile(top);
  try {
    const isDone = Number(held.stats.gid) === gid && (Number(held.stats.mode) & DIRECTORY_BITS) === DIRECTORY_BITS;
    if (isDone && !always) return;
    await changeBelow(held.path, gid);
    // The top last: whoever finds it changed finds everything changed.
    await change(held, gid);
  } finally {
    await letGo(held);
  }
}

/** One directory at a time; those found in it wait in a list, not in open descriptors. */
async function changeBelow(top: string, gid: number): Promise<void> {
  const waiting = [""];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    for await (const { name } of await opendir(join(top, path))) {
      const below = join(path, name);
      const held = await holdFile(join(top, below)).catch((error: unknown) => {
        if (hasErrno(error, "ENOENT")) return undefined;
        throw error;
      });
      if (held === undefined) continue;
      try {
        if (held.stats.isSymbolicLink()) await lchown(join(top, below), Number(held.stats.uid), gid);
        else await change(held, gid);
        if (held.stats.isDirectory()) waiting.push(below);
      } finally {
        await letGo(held);
      }
    }
  }
}

async function change({ path, stats }: HeldFile, gid: number): Promise<void> {
  await chown(path, Number(stats.uid), gid);
  const mode = Number(stats.mode & 0o7777n);
  await chmod(path, mode | (stats.isDirectory() ? DIRECTORY_BITS : FILE_BITS));
}
