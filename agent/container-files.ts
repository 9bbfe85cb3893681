/**
 * Reads small files of a container's root file system. Their owner is hostile: links are followed inside the container's root
 * only, and a FIFO, device or endless file in the place of /etc/passwd neither blocks the agent nor fills its memory.
 */
import { constants } from "node:fs";
import { lstat, open, readlink } from "node:fs/promises";
import { join } from "node:path";
import { hasErrno } from "../src/base/errors.ts";

const FILE_MAX_BYTES = 1024 * 1024;
/** As the kernel has it. */
const LINKS_MAX = 40;

/** The text of the file, cut at 1 MiB; "" when there is none, or when it is not a regular file. */
export async function readContainerFile(root: string, path: string): Promise<string> {
  try {
    const resolved = await resolveInRoot(root, path);
    if (resolved === undefined) return "";
    const handle = await open(resolved, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      if (!(await handle.stat()).isFile()) return "";
      const buffer = Buffer.alloc(FILE_MAX_BYTES);
      let length = 0;
      while (length < buffer.length) {
        const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length);
        if (bytesRead === 0) break;
        length += bytesRead;
      }
      return buffer.toString("utf8", 0, length);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ELOOP", "ENXIO", "EACCES"].some((errno) => hasErrno(error, errno))) return "";
    throw error;
  }
}

/** Follows links step by step, each from the container's root; undefined when there are too many of them. */
async function resolveInRoot(root: string, path: string): Promise<string | undefined> {
  const ahead = path.split("/").filter((name) => name !== "");
  let done: string[] = [];
  for (let links = 0; ahead.length > 0; ) {
    const name = ahead.shift() ?? ".";
    if (name === ".") continue;
    if (name === "..") {
      done.pop();
      continue;
    }
    const here = join(root, ...done, name);
    if (!(await lstat(here)).isSymbolicLink()) {
      done.push(name);
      continue;
    }
    links += 1;
    if (links > LINKS_MAX) return undefined;
    const target = await readlink(here);
    if (target.startsWith("/")) done = [];
    ahead.unshift(...target.split("/").filter((part) => part !== ""));
  }
  return join(root, ...done);
}
