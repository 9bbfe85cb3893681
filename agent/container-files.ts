/**
 * Reads small files of a container's root file system. Their owner is hostile: links are followed inside the container's root
 * only, and a FIFO, device or endless file in the place of /etc/passwd neither blocks the agent nor fills its memory.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { atPath, directoryAt } from "./file-walk.ts";

const FILE_MAX_BYTES = 1024 * 1024;

/** The text of the file, cut at 1 MiB; "" when there is none, or when it is not a regular file. */
export async function readContainerFile(root: string, path: string): Promise<string> {
  try {
    return await atPath(directoryAt(root), path, { follow: true }, async ({ target }) => {
      if (target?.stats.isFile() !== true) return "";
      const handle = await open(target.path, constants.O_RDONLY);
      try {
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
    });
  } catch (error) {
    if (error instanceof BelljarError || ["ENOENT", "ENOTDIR", "EACCES"].some((errno) => hasErrno(error, errno)))
      return "";
    throw error;
  }
}
