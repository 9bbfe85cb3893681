/** What the kernel says about files in a container, in Belljar's words. */

import type { ErrorReason } from "../src/base/error-reasons.ts";
import { BelljarError, isSystemError } from "../src/base/errors.ts";

const reasons: Readonly<Record<string, readonly [ErrorReason, string]>> = {
  ENOENT: ["FILE_NOT_FOUND", "there is no such file or directory"],
  EEXIST: ["FILE_EXISTS", "it exists already"],
  ENOTDIR: ["NOT_A_DIRECTORY", "something on the way is not a directory"],
  EISDIR: ["IS_A_DIRECTORY", "it is a directory"],
  ENOTEMPTY: ["DIRECTORY_NOT_EMPTY", "the directory is not empty"],
  ENAMETOOLONG: ["PATH_INVALID", "a name is too long"],
  EINVAL: ["PATH_INVALID", "the kernel does not take it"],
  EXDEV: ["PATH_INVALID", "the two are on different file systems"],
  EROFS: ["FILE_READ_ONLY", "the file system is read-only"],
  EBUSY: ["FILE_BUSY", "something is mounted there"],
  EPERM: ["FILE_BUSY", "the kernel refuses it"],
  EACCES: ["FILE_BUSY", "the kernel refuses it"],
  ETXTBSY: ["FILE_BUSY", "a program runs from it"],
  ENOSPC: ["CONTAINER_DISK_FULL", "the container's file system has no room left"],
  EDQUOT: ["CONTAINER_DISK_FULL", "the container's file system has no room left"],
  EFBIG: ["FILE_TOO_LARGE", "the file would be larger than its file system takes"],
};

/** The error as the host is told it; what is not known keeps its own words. */
export function fileError(path: string, thrown: unknown): BelljarError {
  if (thrown instanceof BelljarError) return thrown;
  const known = isSystemError(thrown) ? reasons[thrown.code ?? ""] : undefined;
  if (known !== undefined) return new BelljarError(known[0], `${shown(path)}: ${known[1]}`);
  const words = thrown instanceof Error ? thrown.message : String(thrown);
  return new BelljarError("AGENT_FAILED", `${shown(path)}: ${words}`);
}

/** A path in a message. */
export function shown(path: string): string {
  return JSON.stringify(path.length > PATH_SHOWN ? `...${path.slice(-PATH_SHOWN)}` : path);
}

const PATH_SHOWN = 200;
