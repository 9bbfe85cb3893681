/** A snapshot's pages as a file that they can be read from, also where the checkpoint has them packed. */
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { files } from "./checkpoint-files.ts";
import { packFile, unpackFile } from "./compression.ts";
import { countPages, PAGE_BYTES, type PagesFile } from "./memory/index.ts";
import type { Snapshot } from "./snapshot.ts";

/** Of a checkpoint that is not published yet, in `dir`. */
export async function packPages(snapshot: Snapshot, dir: string, signal?: AbortSignal): Promise<Snapshot> {
  const packed = join(dir, "packed");
  await packFile(snapshot.pagesPath, packed, signal);
  await rename(packed, join(dir, files.pages));
  return { ...snapshot, pagesPath: join(dir, files.pages), compression: "zstd" };
}

/**
 * What was unpacked goes when it is disposed of.
 * @param place where it may lie meanwhile; what is there is replaced
 * @throws BelljarError `CHECKPOINT_CORRUPT`, `DISK_FULL`
 */
export async function plainPages(
  { pages, pagesPath, pagesAt, compression }: Snapshot,
  place: string,
  signal?: AbortSignal,
): Promise<PagesFile & AsyncDisposable> {
  if (compression === undefined) return { path: pagesPath, at: pagesAt, [Symbol.asyncDispose]: async () => {} };
  await rm(place, { force: true });
  await unpackFile(pagesPath, place, countPages(pages) * PAGE_BYTES, signal);
  return { path: place, at: 0, [Symbol.asyncDispose]: () => rm(place, { force: true }) };
}
