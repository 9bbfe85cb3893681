/**
 * The disk as a parameter: the few operations that the store needs, on the system's own file systems by default. The twin
 * that models the page cache and power loss is test/support/memory-disk.ts.
 *
 * What the store may rely on, and the twin enforces: data is on disk only after `DiskFile.sync`; a name that was created,
 * renamed or removed is on disk only after `syncDirectory` of its directory; a rename replaces at one instant.
 * Failures are system errors with an errno, as Node reports them.
 */
import { constants } from "node:fs";
import { mkdir, open, readdir, rename, unlink } from "node:fs/promises";
import { basename } from "node:path";
import { publishStep } from "../base/index.ts";

export interface DiskFile {
  /** Writes all of `data` at the end of the file. A failure may leave any part of it written. */
  write(data: Uint8Array): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface Disk {
  /** The whole file. @throws `EFBIG` when it is larger than `maxBytes`, before any of it is read. */
  read(path: string, maxBytes: number): Promise<Uint8Array>;
  /** A new file. @throws `EEXIST` when the name is taken. */
  create(path: string, mode: number): Promise<DiskFile>;
  /** An existing file, to write at its end. */
  append(path: string): Promise<DiskFile>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** The names in a directory, sorted. */
  list(path: string): Promise<string[]>;
  makeDirectory(path: string, mode: number): Promise<void>;
  syncDirectory(path: string): Promise<void>;
}

export const systemDisk: Disk = {
  async read(path, maxBytes) {
    // Never follow a link, and never wait on a FIFO, that took the place of a file of ours.
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const info = await file.stat();
      if (!info.isFile()) throw systemError("EINVAL", "not a regular file", path);
      if (info.size > maxBytes) throw systemError("EFBIG", `larger than ${maxBytes} bytes`, path);
      return await readUpTo(file, maxBytes, info.size, path);
    } finally {
      await file.close();
    }
  },
  create: (path, mode) => openForWriting(path, constants.O_CREAT | constants.O_EXCL, mode),
  append: (path) => openForWriting(path, constants.O_APPEND | constants.O_NOFOLLOW, 0),
  rename: (from, to) => change("rename", to, () => rename(from, to)),
  unlink: (path) => change("unlink", path, () => unlink(path)),
  list: async (path) => (await readdir(path)).sort(),
  makeDirectory: (path, mode) =>
    change("makeDirectory", path, async () => {
      await mkdir(path, { mode });
    }),
  syncDirectory: (path) =>
    change("syncDirectory", path, async () => {
      const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        await directory.sync();
      } finally {
        await directory.close();
      }
    }),
};

function change<T>(operation: string, path: string, work: () => Promise<T>): Promise<T> {
  return publishStep("store", `${operation} ${basename(path)}`, work);
}

async function openForWriting(path: string, flags: number, mode: number): Promise<DiskFile> {
  const file = await change("open", path, () => open(path, constants.O_WRONLY | flags, mode));
  return {
    write: (data) => change("write", path, () => file.appendFile(data)),
    sync: () => change("sync", path, () => file.sync()),
    close: () => file.close(),
  };
}

type OpenFile = Awaited<ReturnType<typeof open>>;

/** Reads to the end; a file that grows past the bound meanwhile is refused too. */
async function readUpTo(file: OpenFile, maxBytes: number, sizeBytes: number, path: string): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let total = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(Math.max(sizeBytes - total, 0) + 1);
    const { bytesRead } = await file.read(chunk, 0, chunk.length, null);
    if (bytesRead === 0) return Buffer.concat(chunks, total);
    total += bytesRead;
    if (total > maxBytes) throw systemError("EFBIG", `larger than ${maxBytes} bytes`, path);
    chunks.push(chunk.subarray(0, bytesRead));
  }
}

/** An error in the form of those that Node makes of an errno. */
export function systemError(errno: string, problem: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${errno}: ${problem}, '${path}'`), { code: errno, path });
}
