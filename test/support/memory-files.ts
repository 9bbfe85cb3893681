/** Files of a container in memory: regular files in one flat directory, for tests of what carries the calls there and back. */
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError, fileLimits } from "../../src/base/index.ts";
import { ContainerFiles, type FileAttributes, type FileCalls, type FileInfo } from "../../src/container/index.ts";

interface MemoryFile {
  readonly bytes: Buffer;
  readonly attributes: FileAttributes;
}

interface Open {
  readonly path: string;
  bytes: Buffer;
  readonly write: boolean;
}

export class MemoryFiles extends ContainerFiles {
  readonly files: Map<string, MemoryFile>;
  readonly open: Map<string, Open>;

  constructor() {
    const files = new Map<string, MemoryFile>();
    const open = new Map<string, Open>();
    super(memoryCalls(files, open));
    this.files = files;
    this.open = open;
  }
}

function memoryCalls(files: Map<string, MemoryFile>, open: Map<string, Open>): FileCalls {
  const find = (path: string): MemoryFile => {
    const found = files.get(path);
    if (found !== undefined) return found;
    throw new BelljarError("FILE_NOT_FOUND", `${path} is not there`);
  };
  const opened = (id: string): Open => {
    const found = open.get(id);
    if (found !== undefined) return found;
    throw new BelljarError("FILE_NOT_FOUND", `no file is open as ${id}`);
  };
  return {
    stat: async ({ path }) => infoOf(find(path)),
    list: async ({ after }) => {
      const names = [...files.keys()].filter((name) => name > after).sort();
      // Two on a page.
      const entries = names.slice(0, 2).map((name) => ({ name, info: infoOf(find(name)) }));
      return { entries, more: names.length > 2, unnameable: 1 };
    },
    open: async ({ id, path, write }) => {
      const known = files.get(path);
      if (!write) find(path);
      if (!open.has(id)) open.set(id, { path, bytes: write ? Buffer.alloc(0) : find(path).bytes, write });
      return known === undefined ? undefined : infoOf(known);
    },
    read: async ({ id, offset }) => {
      const { bytes } = opened(id);
      const data = bytes.subarray(offset, offset + fileLimits.chunkMaxBytes);
      return { data, end: data.length < fileLimits.chunkMaxBytes };
    },
    write: async ({ id, offset, data }) => {
      const file = opened(id);
      const grown = Buffer.alloc(Math.max(file.bytes.length, offset + data.length));
      file.bytes.copy(grown);
      grown.set(data, offset);
      file.bytes = grown;
    },
    commit: async ({ id, sizeBytes, attributes }) => {
      const { path, bytes } = opened(id);
      if (bytes.length !== sizeBytes) throw new BelljarError("INVALID_ARGUMENT", "not everything was written");
      files.set(path, { bytes, attributes });
      open.delete(id);
    },
    close: async ({ id }) => {
      open.delete(id);
    },
    makeDirectory: async ({ path }) => {
      throw new BelljarError("FILE_EXISTS", `${path} exists`);
    },
    makeLink: async () => {},
    remove: async ({ path }) => {
      find(path);
      files.delete(path);
    },
    rename: async ({ path, newPath }) => {
      files.set(newPath, find(path));
      files.delete(path);
    },
    setAttributes: async ({ path, attributes }) => {
      files.set(path, { bytes: find(path).bytes, attributes });
    },
    watch: async ({ after, waitMs }, options = {}) => {
      if (after < 3n) return [{ sequence: after + 1n, kind: "changed", name: `f${after}` }];
      await sleep(waitMs, undefined, { signal: options.signal });
      return [];
    },
  };
}

function infoOf({ bytes, attributes }: MemoryFile): FileInfo {
  const { mode = 0o644, modifiedAtMs = 0 } = attributes;
  return { type: "file", mode, uid: 0, gid: 0, sizeBytes: bytes.length, modifiedAtMs, linkTarget: undefined };
}
