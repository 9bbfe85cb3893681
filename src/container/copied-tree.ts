/**
 * A small file or directory of the host as it is now, to be copied into the guest. Only files, directories and links are copied;
 * links as they are. What changes while it is read is read again: whoever watches sees the change.
 */
import { createHash } from "node:crypto";
import { lstat, open, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno, mountLimits } from "../base/index.ts";

export interface CopiedEntry {
  /** Below the source; empty for the source itself. */
  readonly path: string;
  readonly kind: "file" | "directory" | "link";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modifiedMs: number;
  readonly data?: Uint8Array | undefined;
  readonly target?: string | undefined;
}

export interface CopiedTree {
  /** The source first; what is in a directory after it. */
  readonly entries: readonly CopiedEntry[];
  /** Directories that were looked into, as paths of the host. */
  readonly directories: readonly string[];
  /** Changes with anything that is copied. */
  readonly fingerprint: string;
}

/** @throws BelljarError `MOUNT_TOO_LARGE`, or what reading failed with: `ENOENT` when the source has vanished */
export async function readTree(source: string): Promise<CopiedTree> {
  const reader = new TreeReader(source);
  await reader.read("", 0);
  return reader.tree();
}

/** Whether the source can be copied; with `demand` the error that says why not is thrown. */
export async function fitsCopy(source: string, options: { readonly demand?: boolean } = {}): Promise<boolean> {
  try {
    await readTree(source);
    return true;
  } catch (error) {
    if (options.demand !== true && BelljarError.from(error).reason === "MOUNT_TOO_LARGE") return false;
    throw error;
  }
}

class TreeReader {
  readonly #source: string;
  readonly #entries: CopiedEntry[] = [];
  readonly #directories: string[] = [];
  #bytes = 0;

  constructor(source: string) {
    this.#source = source;
  }

  tree(): CopiedTree {
    const hash = createHash("sha256");
    for (const { data, ...facts } of this.#entries) {
      hash.update(JSON.stringify(facts));
      if (data !== undefined) hash.update(data);
    }
    return { entries: this.#entries, directories: this.#directories, fingerprint: hash.digest("hex") };
  }

  async read(path: string, depth: number): Promise<void> {
    const place = path === "" ? this.#source : join(this.#source, path);
    const info = await lstat(place).catch((error: unknown) => {
      if (path !== "" && hasErrno(error, "ENOENT")) return undefined;
      throw error;
    });
    if (info === undefined) return;
    const { mode, uid, gid, mtimeMs } = info;
    const facts = { path, mode: mode & 0o7777, uid, gid, modifiedMs: Math.floor(mtimeMs) };
    if (info.isDirectory()) {
      this.#add({ ...facts, kind: "directory" });
      if (depth > mountLimits.copyDepthMax)
        throw this.#tooLarge(`directories more than ${mountLimits.copyDepthMax} deep`);
      this.#directories.push(place);
      for (const name of (await readdir(place)).sort())
        await this.read(path === "" ? name : `${path}/${name}`, depth + 1);
    } else if (info.isFile()) {
      this.#count(info.size);
      const data = await this.#content(place);
      this.#add({ ...facts, kind: "file", data });
    } else if (info.isSymbolicLink()) {
      const target = await readlink(place);
      this.#add({ ...facts, kind: "link", target });
    }
  }

  #add(entry: CopiedEntry): void {
    this.#entries.push(entry);
    if (this.#entries.length <= mountLimits.copyEntriesMax) return;
    throw this.#tooLarge(`more than ${mountLimits.copyEntriesMax} files`);
  }

  /** At most one byte more than was counted: a file that grows meanwhile is seen to be too large, or seen again. */
  async #content(place: string): Promise<Uint8Array> {
    const file = await open(place, "r");
    try {
      const { size } = await file.stat();
      this.#count(0);
      const buffer = Buffer.alloc(Math.min(size, mountLimits.copyMaxBytes));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
      this.#bytes += bytesRead;
      this.#count(0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  }

  #count(more: number): void {
    if (this.#bytes + more > mountLimits.copyMaxBytes)
      throw this.#tooLarge(`more than ${mountLimits.copyMaxBytes} bytes`);
  }

  #tooLarge(what: string): BelljarError {
    return new BelljarError("MOUNT_TOO_LARGE", `${this.#source} has ${what}, and cannot be copied into a guest`, {
      facts: { source: this.#source, bytesMax: mountLimits.copyMaxBytes, entriesMax: mountLimits.copyEntriesMax },
    });
  }
}
