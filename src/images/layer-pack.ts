/**
 * Packs a directory as a read-only EROFS image whose bytes depend on the directory alone. It is uncompressed: all sandboxes of a host
 * share it through the page cache, guests under emulation would pay for every decompressed page, and a registry's compression was
 * saving the network, which is behind us. Runs of zeros become holes in the end, so sparse files cost what they did.
 */
import { open } from "node:fs/promises";
import { BelljarError, imageLimits, isSystemError, runTool } from "../base/index.ts";

const CHUNK_SIZE = 65_536;

export interface PackConfig {
  /** Goes with its packing. */
  readonly root: string;
  /** Of the image, which is synced and read-only in the end. */
  readonly path: string;
  /** The image's UUID is made of it. */
  readonly diffId: string;
  /** Large holes: it is packed in chunks, so that they are never written out. */
  readonly hasHoles: boolean;
  /** Zeros that are worth being made holes. */
  readonly hasZeros: boolean;
}

/** @throws BelljarError `DISK_FULL`, `PERMISSION_DENIED`, `CANCELLED`, `HOST_TOOL_*` */
export async function packDirectory(config: PackConfig, signal?: AbortSignal): Promise<void> {
  const { root, path, diffId, hasHoles, hasZeros } = config;
  const hex = diffId.slice("sha256:".length);
  const uuid = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join("-");
  // Extended inodes hold a time each; a compact one would take the time of the build. Without the super block's checksum
  // its build time can be blanked below.
  const args = ["--quiet", "-U", uuid, "-E", "force-inode-extended,nosbcrc", "--preserve-mtime"];
  if (hasHoles) args.push(`--chunksize=${CHUNK_SIZE}`);
  const limits = { signal, timeoutMs: imageLimits.timeoutMs };
  try {
    await runTool("mkfs.erofs", [...args, path, root], limits);
    // Before anything is synced: what is removed in time is never written to the disk.
    const removal = runTool("rm", ["-rf", "--one-file-system", root], { timeoutMs: imageLimits.timeoutMs });
    const holes = hasZeros ? runTool("fallocate", ["--dig-holes", path], limits) : undefined;
    const [failed] = (await Promise.allSettled([removal, holes])).filter(({ status }) => status === "rejected");
    if (failed?.status === "rejected") throw failed.reason;
    await finish(path);
  } catch (error) {
    throw toolError(error, path);
  }
}

/** Offset and length of the super block's build time (seconds and nanoseconds). */
const BUILD_TIME = { offset: 1024 + 24, bytes: 12 };

async function finish(path: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    await file.write(Buffer.alloc(BUILD_TIME.bytes), 0, BUILD_TIME.bytes, BUILD_TIME.offset);
    await file.chmod(0o400);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** A full disk and missing rights, as programs say them, are errors of their own. */
export function toolError(error: unknown, path: string): unknown {
  if (isSystemError(error) && error.code === "ENOSPC") return diskFull(path, error);
  if (!(error instanceof BelljarError) || error.reason !== "HOST_TOOL_FAILED") return error;
  if (/No space left on device|Disk quota exceeded|Wrote only \d+ of \d+ bytes/.test(error.message))
    return diskFull(path, error);
  if (/Operation not permitted|Cannot mknod|Cannot change ownership/.test(error.message)) {
    return new BelljarError(
      "PERMISSION_DENIED",
      `the files of a layer could not be made with their owners and devices in ${path}`,
      {
        facts: { path },
        cause: error,
      },
    );
  }
  return error;
}

export function diskFull(path: string, cause: unknown): BelljarError {
  return new BelljarError("DISK_FULL", `no room is left on the file system of ${path}`, { facts: { path }, cause });
}
