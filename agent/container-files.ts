/**
 * Reads small files of a container's root file system. Their owner is hostile: links are followed inside the container's root
 * only, and a FIFO, device or endless file in the place of /etc/passwd neither blocks the agent nor fills its memory.
 */
import { constants, lstatSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { atPath, directoryAt } from "./file-walk.ts";

const FILE_MAX_BYTES = 1024 * 1024;
/** Longer ones are read anew each time. */
const KEPT_MAX_BYTES = 64 * 1024;

/** A file that is read again and again, and seldom another one than before. */
export class ContainerFile {
  readonly #root: string;
  readonly #path: string;
  #kept: { readonly identity: string; readonly text: string } | undefined;

  constructor(root: string, path: string) {
    this.#root = root;
    this.#path = path;
  }

  /** As `readContainerFile`. */
  async read(): Promise<string> {
    const identity = this.#identity();
    if (identity !== undefined && this.#kept?.identity === identity) return this.#kept.text;
    const text = await readContainerFile(this.#root, this.#path);
    const isSame = identity !== undefined && identity === this.#identity();
    this.#kept = isSame && text.length <= KEPT_MAX_BYTES ? { identity, text } : undefined;
    return text;
  }

  /** Of the file that has the name itself, not by a link; whatever is changed of it, that time changes too. */
  #identity(): string | undefined {
    const stats = lstatSync(join(this.#root, this.#path), { bigint: true, throwIfNoEntry: false });
    return stats?.isFile() === true ? `${stats.dev} ${stats.ino} ${stats.size} ${stats.ctimeNs}` : undefined;
  }
}

/** The text of the file, cut at 1 MiB; "" when there is none, or when it is not a regular file. */
export async function readContainerFile(root: string, path: string): Promise<string> {
  try {
    return await atPath(directoryAt(root), path, { follow: true }, async ({ target }) => {
      if (target?.stats.isFile() !== true) return "";
      const handle = await open(target.path, constants.O_RDONLY);
      try {
        // One byte more than it seems to have: its end is seen then.
        const buffer = Buffer.alloc(Math.min(FILE_MAX_BYTES, Number(target.stats.size) + 1));
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
    });
  } catch (error) {
    if (error instanceof BelljarError || ["ENOENT", "ENOTDIR", "EACCES"].some((errno) => hasErrno(error, errno)))
      return "";
    throw error;
  }
}
