/**
 * Files of containers that the host reads or writes piece by piece, under ids that it chose. What is read stays the same file
 * whatever becomes of its name; what is written is a temporary file beside the place where it will be, until it is complete. Nothing
 * stays open when nobody uses it.
 */
import { constants } from "node:fs";
import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { fileLimits } from "../src/base/limits.ts";
import { type Attributes, changeHeld, temporaryName } from "./file-changes.ts";
import { shown } from "./file-errors.ts";
import { type FileInfo, infoOf, missing } from "./file-info.ts";
import { atPath, type HeldFile, type HoldRoot, holdAgain, letGo } from "./file-walk.ts";

const NEW_FILE = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** What a temporary file becomes. */
interface Destination {
  readonly parent: HeldFile;
  readonly name: string;
  /** Of the file that is replaced. */
  readonly replaced: FileInfo | undefined;
}

interface OpenFile {
  readonly id: string;
  readonly path: string;
  readonly handle: FileHandle;
  readonly info: FileInfo | undefined;
  readonly destination: Destination | undefined;
  /** Under way or done; a repeated call joins it. */
  commit: Promise<void> | undefined;
  readonly lease: NodeJS.Timeout;
}

export class OpenFiles {
  /** A promise from the moment that the opening begins, so that a repeated call waits for the first. */
  readonly #files = new Map<string, Promise<OpenFile>>();
  /** Those that were committed last, for calls that are repeated. */
  readonly #committed = new Set<string>();
  readonly #buffers: Buffer[] = [];

  /** @throws BelljarError what a walk throws, `IS_A_DIRECTORY`, `NOT_A_FILE`, `AGENT_FAILED` when too many are open */
  async open(root: HoldRoot, id: string, path: string, write: boolean): Promise<FileInfo | undefined> {
    const known = this.#files.get(id);
    if (known !== undefined) return (await known).info;
    if (this.#files.size >= fileLimits.openMax) {
      throw new BelljarError("AGENT_FAILED", `${this.#files.size} files are open, as many as may be`);
    }
    this.#committed.delete(id);
    const opening = write ? this.#create(root, id, path) : this.#open(root, id, path);
    this.#files.set(id, opening);
    try {
      return (await opening).info;
    } catch (error) {
      this.#files.delete(id);
      throw error;
    }
  }

  async read(id: string, offset: bigint, maxBytes: number): Promise<{ readonly data: Buffer; readonly end: boolean }> {
    const file = await this.#find(id);
    const buffer = this.#buffers.pop() ?? Buffer.allocUnsafeSlow(fileLimits.chunkMaxBytes);
    const wanted = Math.min(Math.max(1, maxBytes), buffer.length);
    let length = 0;
    while (length < wanted) {
      const { bytesRead } = await file.handle.read(buffer, length, wanted - length, position(offset) + length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    // The answer is copied into its frame before anything else has a turn.
    setImmediate(() => {
      if (this.#buffers.length < fileLimits.requestsAhead) this.#buffers.push(buffer);
    });
    return { data: buffer.subarray(0, length), end: length < wanted };
  }

  async write(id: string, offset: bigint, data: Uint8Array): Promise<void> {
    const file = await this.#find(id);
    if (file.destination === undefined) throw new BelljarError("INVALID_ARGUMENT", "this file was opened for reading");
    if (file.commit !== undefined) return;
    for (let done = 0; done < data.length; ) {
      const { bytesWritten } = await file.handle.write(data, done, data.length - done, position(offset) + done);
      done += bytesWritten;
    }
  }

  /** Closes it too. */
  async commit(id: string, size: bigint, attributes: Attributes): Promise<void> {
    if (this.#committed.has(id)) return;
    const file = await this.#find(id);
    file.commit ??= this.#commit(file, size, attributes).catch((error: unknown) => {
      file.commit = undefined;
      throw error;
    });
    await file.commit;
    this.#committed.add(id);
    const [oldest] = this.#committed;
    if (this.#committed.size > fileLimits.committedMax && oldest !== undefined) this.#committed.delete(oldest);
    await this.close(id);
  }

  /** Nothing there is success. */
  async close(id: string): Promise<void> {
    const opening = this.#files.get(id);
    if (opening === undefined) return;
    const file = await opening.catch(() => undefined);
    if (this.#files.get(id) !== opening) return;
    this.#files.delete(id);
    if (file !== undefined) await release(file);
  }

  async closeAll(): Promise<void> {
    for (const id of [...this.#files.keys()]) await this.close(id).catch(() => {});
  }

  async #commit({ id, path, handle, destination }: OpenFile, size: bigint, attributes: Attributes): Promise<void> {
    if (destination === undefined) throw new BelljarError("INVALID_ARGUMENT", "this file was opened for reading");
    const written = (await handle.stat({ bigint: true })).size;
    if (written !== size) {
      throw new BelljarError("INVALID_ARGUMENT", `${shown(path)}: ${written} of ${size} bytes were written`);
    }
    const { replaced, parent, name } = destination;
    await changeHeld(`/proc/self/fd/${handle.fd}`, {
      owner: attributes.owner ?? { uid: replaced?.uid ?? 0, gid: replaced?.gid ?? 0 },
      mode: attributes.mode ?? replaced?.mode ?? 0o644,
      modifiedMs: attributes.modifiedMs,
    });
    await rename(`${parent.path}/${temporaryName(id)}`, `${parent.path}/${name}`);
  }

  async #open(root: HoldRoot, id: string, path: string): Promise<OpenFile> {
    return await atPath(root, path, { follow: true }, async ({ target }) => {
      if (target === undefined) throw missing(path);
      if (target.stats.isDirectory()) throw new BelljarError("IS_A_DIRECTORY", `${shown(path)}: it is a directory`);
      if (!target.stats.isFile()) throw new BelljarError("NOT_A_FILE", `${shown(path)}: it is not a regular file`);
      const handle = await open(target.path, constants.O_RDONLY | constants.O_NONBLOCK);
      return this.#entry({ id, path, handle, info: infoOf(target.stats), destination: undefined });
    });
  }

  async #create(root: HoldRoot, id: string, path: string): Promise<OpenFile> {
    return await atPath(root, path, { follow: true }, async ({ parent, name, target }) => {
      if (parent === undefined || target?.stats.isDirectory() === true) {
        throw new BelljarError("IS_A_DIRECTORY", `${shown(path)}: it is a directory`);
      }
      if (target !== undefined && !target.stats.isFile()) {
        throw new BelljarError("NOT_A_FILE", `${shown(path)}: it is not a regular file`);
      }
      const held = await holdAgain(parent);
      try {
        const handle = await open(`${held.path}/${temporaryName(id)}`, NEW_FILE, 0o600);
        const info = target === undefined ? undefined : infoOf(target.stats);
        return this.#entry({ id, path, handle, info, destination: { parent: held, name, replaced: info } });
      } catch (error) {
        await letGo(held);
        throw error;
      }
    });
  }

  #entry(parts: Omit<OpenFile, "commit" | "lease">): OpenFile {
    const lease = setTimeout(() => void this.close(parts.id).catch(() => {}), fileLimits.openLeaseMs);
    lease.unref();
    return { ...parts, commit: undefined, lease };
  }

  async #find(id: string): Promise<OpenFile> {
    const opening = this.#files.get(id);
    if (opening === undefined) throw new BelljarError("FILE_NOT_FOUND", `no file is open as ${shown(id)}`);
    const file = await opening;
    file.lease.refresh();
    return file;
  }
}

async function release({ id, handle, destination, commit, lease }: OpenFile): Promise<void> {
  clearTimeout(lease);
  const isCommitted = await commit?.then(
    () => true,
    () => false,
  );
  await handle.close();
  if (destination === undefined) return;
  try {
    if (isCommitted !== true) await unlink(`${destination.parent.path}/${temporaryName(id)}`);
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
  } finally {
    await letGo(destination.parent);
  }
}

function position(offset: bigint): number {
  if (offset <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(offset);
  throw new BelljarError("INVALID_ARGUMENT", "the offset is larger than any file");
}
