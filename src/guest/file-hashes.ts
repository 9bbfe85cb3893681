/**
 * SHA-256 of files, remembered. A file is hashed again when its device, inode, size, mtime or ctime is another: ctime is
 * set by the kernel on every write, rename and change of attributes and cannot be set by a program, so every change made
 * through the file system is noticed. Not noticed without `full`: bytes that rot on the disk below the file system.
 * What is remembered lies in one small file; when that cannot be read or written, files are simply hashed each time.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { hasErrno, parseJson } from "../base/index.ts";
import { writeFileDurably } from "../store/index.ts";

/** Old entries go first once there are this many. */
const ENTRIES_MAX = 512;
/**
 * A file changed within this time before it was hashed is not remembered: the kernel's clock for timestamps is coarse, and a
 * second change could bear the same one.
 */
const SETTLE_NS = 100_000_000n;

export interface HashedFile {
  readonly sha256: string;
  readonly sizeBytes: number;
}

export class FileHashes {
  readonly #path: string;
  #entries: Map<string, string> | undefined;
  #changed = false;

  /** @param path where to remember */
  constructor(path: string) {
    this.#path = path;
  }

  /** @throws the system error when there is no such file */
  async hash(
    path: string,
    options: { readonly full?: boolean; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<HashedFile> {
    const entries = await this.#load();
    const before = await identity(path);
    const known = options.full === true ? undefined : entries.get(before.key);
    if (known !== undefined) return { sha256: known, sizeBytes: before.sizeBytes };
    const hash = createHash("sha256");
    await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash, { signal: options.signal });
    const sha256 = hash.digest("hex");
    const after = await identity(path);
    const settled = BigInt(Date.now()) * 1_000_000n - after.ctimeNs > SETTLE_NS;
    if (after.key === before.key && settled && entries.get(after.key) !== sha256) {
      entries.set(after.key, sha256);
      this.#changed = true;
    }
    return { sha256, sizeBytes: after.sizeBytes };
  }

  async hashIfPresent(path: string): Promise<HashedFile | undefined> {
    try {
      return await this.hash(path);
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return undefined;
      throw error;
    }
  }

  /** Writes down what was learned since the last time. Never fails: it only saves time. */
  async save(): Promise<void> {
    if (!this.#changed || this.#entries === undefined) return;
    this.#changed = false;
    const kept = [...this.#entries].slice(-ENTRIES_MAX);
    await writeFileDurably(this.#path, JSON.stringify(Object.fromEntries(kept)), { mode: 0o644 }).catch(() => {});
  }

  async #load(): Promise<Map<string, string>> {
    if (this.#entries !== undefined) return this.#entries;
    try {
      const text = await readFile(this.#path, "utf8");
      const record = parseJson(text, this.#path, "STATE_CORRUPT").map((field) =>
        field.string({ pattern: /^[0-9a-f]{64}$/ }),
      );
      this.#entries = new Map(Object.entries(record));
    } catch {
      this.#entries = new Map();
    }
    return this.#entries;
  }
}

interface FileIdentity {
  readonly key: string;
  readonly sizeBytes: number;
  readonly ctimeNs: bigint;
}

async function identity(path: string): Promise<FileIdentity> {
  const info = await stat(path, { bigint: true });
  return {
    key: [info.dev, info.ino, info.size, info.mtimeNs, info.ctimeNs].join(":"),
    sizeBytes: Number(info.size),
    ctimeNs: info.ctimeNs,
  };
}
