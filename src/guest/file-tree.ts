/**
 * A file system in the making: paths to entries, everything owned by root and dated the epoch, so that the same tree is
 * the same bytes in every format it is written in. Parents are made as needed; entries come out sorted, parents first.
 */
import { readdir, readFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { BelljarError } from "../base/index.ts";

export type TreeEntry =
  | { readonly kind: "directory"; readonly mode: number }
  | { readonly kind: "symlink"; readonly target: string }
  | { readonly kind: "file"; readonly mode: number; readonly data: Uint8Array };

export class FileTree {
  readonly #entries = new Map<string, TreeEntry>();

  /** Sorted by code unit; "a" comes before "a/b". */
  entries(): readonly (readonly [path: string, entry: TreeEntry])[] {
    return [...this.#entries].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  get(path: string): TreeEntry | undefined {
    return this.#entries.get(path);
  }

  directory(path: string, mode: number = 0o755): this {
    return this.#put(path, { kind: "directory", mode });
  }

  symlink(path: string, target: string): this {
    return this.#put(path, { kind: "symlink", target });
  }

  file(path: string, data: Uint8Array | string, mode: number = 0o644): this {
    return this.#put(path, { kind: "file", mode, data: typeof data === "string" ? Buffer.from(data) : data });
  }

  /** Adds the files below a directory of the host under the same names, readable by all. */
  async addFrom(hostDirectory: string): Promise<this> {
    const found = await readdir(hostDirectory, { recursive: true, withFileTypes: true });
    for (const item of found) {
      if (!item.isFile()) continue;
      const hostPath = join(item.parentPath, item.name);
      this.file(hostPath.slice(hostDirectory.length + 1), await readFile(hostPath));
    }
    return this;
  }

  #put(path: string, entry: TreeEntry): this {
    if (path === "" || path.startsWith("/") || posix.normalize(path) !== path || path.startsWith("..")) {
      throw new BelljarError("GUEST_BUILD_FAILED", `${JSON.stringify(path)} is not a path inside a tree`);
    }
    const parent = posix.dirname(path);
    if (parent !== "." && !this.#entries.has(parent)) this.directory(parent);
    if (parent !== "." && this.#entries.get(parent)?.kind !== "directory") {
      throw new BelljarError("GUEST_BUILD_FAILED", `${path} lies below ${parent}, which is not a directory`);
    }
    if (this.#entries.has(path) && entry.kind !== "directory") {
      throw new BelljarError("GUEST_BUILD_FAILED", `${path} would be written twice`);
    }
    this.#entries.set(path, entry);
    return this;
  }
}
