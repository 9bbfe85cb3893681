/** What `doctor` asks of the host itself. */
import { readFile, stat, statfs } from "node:fs/promises";
import { release } from "node:os";
import { dirname } from "node:path";
import { hasErrno } from "../base/index.ts";

/** A parameter, so that tests can be any host. */
export interface HostFacts {
  readonly platform: string;
  readonly architecture: string;
  readonly nodeVersion: string;
  readonly kernelRelease: string;
  readonly userId: number;
  readonly searchPath: string;
  /** Content of a file; undefined when there is none. */
  readFile(path: string): Promise<string | undefined>;
  exists(path: string): Promise<boolean>;
  /** For this user, where a directory is or would be; undefined when nobody knows. */
  freeBytes(dir: string): Promise<number | undefined>;
}

export const thisHost: HostFacts = {
  platform: process.platform,
  architecture: process.arch,
  nodeVersion: process.versions.node,
  kernelRelease: release(),
  userId: process.getuid?.() ?? -1,
  searchPath: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
  readFile: async (path) => {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return undefined;
      throw error;
    }
  },
  exists: async (path) => {
    try {
      await stat(path);
      return true;
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return false;
      throw error;
    }
  },
  freeBytes: async (dir) => {
    for (let place = dir; ; place = dirname(place)) {
      try {
        const { bavail, bsize } = await statfs(place);
        return bavail * bsize;
      } catch (error) {
        if (!hasErrno(error, "ENOENT") || place === dirname(place)) throw error;
      }
    }
  },
};
