/** Tells what kind of image a path holds, by looking into it. */
import { createReadStream } from "node:fs";
import { access, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno } from "../base/index.ts";
import { compressionOf, decompress } from "./decompress.ts";
import { FileSource } from "./file-source.ts";
import { READ_BYTES, readHead } from "./image-files.ts";
import { TarFormatError } from "./tar-header.ts";
import { TarReader } from "./tar-reader.ts";
import type { ImageKind } from "./types.ts";

/** Top-level names of image archives; any other name makes an archive a root file system. */
const ARCHIVE_NAMES = /^(?:blobs|index\.json|oci-layout|manifest\.json|repositories|[0-9a-f]{64}(?:\.json|\.tar)?)?$/;

export interface SourceKind {
  readonly kind: Exclude<ImageKind, "auto">;
  readonly isDirectory: boolean;
}

/** @throws BelljarError `INVALID_ARGUMENT` when there is nothing at the path, or `wanted` cannot be it. */
export async function detectKind(path: string, wanted: ImageKind): Promise<SourceKind> {
  const isDirectory = await isDirectoryAt(path);
  if (wanted !== "auto") {
    const needsDirectory = wanted === "oci-layout";
    if (wanted !== "rootfs" && isDirectory !== needsDirectory) {
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `${path} is a ${isDirectory ? "directory" : "file"}, which ${wanted} cannot be`,
      );
    }
    return { kind: wanted, isDirectory };
  }
  if (isDirectory) return { kind: (await exists(join(path, "oci-layout"))) ? "oci-layout" : "rootfs", isDirectory };
  return { kind: await archiveKind(path), isDirectory };
}

async function isDirectoryAt(path: string): Promise<boolean> {
  try {
    const found = await stat(path);
    if (!found.isDirectory() && !found.isFile())
      throw new BelljarError("INVALID_ARGUMENT", `${path} is neither a file nor a directory`);
    return found.isDirectory();
  } catch (error) {
    if (!hasErrno(error, "ENOENT") && !hasErrno(error, "ENOTDIR")) throw error;
    throw new BelljarError("INVALID_ARGUMENT", `there is nothing at ${path}`, { facts: { path }, cause: error });
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function archiveKind(path: string): Promise<Exclude<ImageKind, "auto">> {
  const names = new Set<string>();
  const isPlain = compressionOf(await readHead(path)) === "none";
  const source = isPlain ? new FileSource(path) : decompress(createReadStream(path, { highWaterMark: READ_BYTES }));
  const reader = new TarReader(source);
  try {
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      const top = entry.path.split("/").find((part) => part !== "" && part !== ".") ?? "";
      // A name that leads elsewhere is for the reader of the kind to refuse; it decides nothing here.
      if (top === "..") continue;
      if (!ARCHIVE_NAMES.test(top)) return "rootfs";
      names.add(top);
      if (names.has("oci-layout") && names.has("index.json")) return "oci-archive";
    }
  } catch (error) {
    if (!(error instanceof TarFormatError)) throw error;
    if (names.size === 0)
      throw new BelljarError("IMAGE_INVALID", `${path} is not a tar archive: ${error.message}`, { facts: { path } });
  } finally {
    await reader.close();
  }
  if (names.has("manifest.json")) return "docker-archive";
  return names.has("index.json") || names.has("oci-layout") ? "oci-archive" : "rootfs";
}
