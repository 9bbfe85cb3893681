/**
 * Removes the files that nothing needs. Needed is what an image names and what a container has; while a sandbox is there that cannot
 * be read, it may need any of them. What is being added, or about to be used, is protected by the lock, which is held exclusively
 * here from before the question is asked until the last file is gone. May be cut short at any instant: each file that goes is
 * needed by nothing.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno, type Log, messageChain } from "../base/index.ts";
import { acquireLock, systemDisk } from "../store/index.ts";
import { digestHex } from "./digest.ts";
import type { ImageIndex, ImageRecords } from "./image-index.ts";
import { type LayerUse, type ReadLayerUse, usersOf } from "./layer-use.ts";
import { layerFileName, type StoreLayout } from "./layout.ts";
import type { GarbageReport } from "./types.ts";

export interface GarbageDeps {
  readonly layout: StoreLayout;
  readonly index: ImageIndex;
  readonly log: Log;
  /** Undefined: nobody can say, and every layer stays. */
  readonly layerUse: ReadLayerUse | undefined;
}

export interface CollectOptions {
  readonly lockTimeoutMs: number;
  /** Images that no container uses lose their names first. */
  readonly unusedImages: boolean;
}

type Collected = Omit<GarbageReport, "stagingRemoved">;

const NOTHING: Collected = { imagesRemoved: [], layersRemoved: 0, bytesFreed: 0, keptFor: [], isPostponed: false };

export async function collectGarbage(deps: GarbageDeps, options: CollectOptions): Promise<Collected> {
  if (deps.layerUse === undefined) return NOTHING;
  const { lockTimeoutMs: timeoutMs } = options;
  try {
    await using _lock = await acquireLock(deps.layout.useLock, {
      mode: "exclusive",
      timeoutMs,
      what: "the image store",
    });
    return await collect(deps, await deps.layerUse(), options.unusedImages);
  } catch (error) {
    if (!(error instanceof BelljarError) || error.reason !== "LOCKED") throw error;
    // Somebody is adding or taking an image; the next removal, or the next start, collects.
    deps.log.debug("images: garbage is left for later", { why: error.message });
    return { ...NOTHING, isPostponed: true };
  }
}

async function collect({ layout, index, log }: GarbageDeps, use: LayerUse, unusedImages: boolean): Promise<Collected> {
  if (use.unreadable.length > 0) {
    log.warn("images: nothing is removed while there are sandboxes that cannot be read", {
      sandboxes: use.unreadable.join(" "),
    });
    return { ...NOTHING, keptFor: use.unreadable };
  }
  const imagesRemoved = unusedImages ? await removeUnusedNames(index, use) : [];
  const records = [...(await index.read()).values()];
  const layers = new Set([
    ...records.flatMap((record) => record.diffIds.map(layerFileName)),
    ...use.containers.flatMap(({ layerFiles }) => layerFiles),
  ]);
  const blobs = new Set(
    records.flatMap((record) => [digestHex(record.manifestDigest), digestHex(record.configDigest)]),
  );
  const removedBlobs = await removeOthers(layout.blobsDir, blobs, log);
  const removedLayers = await removeOthers(layout.layersDir, layers, log);
  return {
    imagesRemoved,
    layersRemoved: removedLayers.files,
    bytesFreed: removedBlobs.bytes + removedLayers.bytes,
    keptFor: [],
    isPostponed: false,
  };
}

async function removeUnusedNames(index: ImageIndex, use: LayerUse): Promise<string[]> {
  const unused = (records: ImageRecords): string[] =>
    [...records].filter(([, record]) => usersOf(record, use).length === 0).map(([name]) => name);
  if (unused(await index.read()).length === 0) return [];
  const removed: string[] = [];
  await index.change((records) => {
    for (const name of unused(records)) {
      records.delete(name);
      removed.push(name);
    }
  });
  return removed;
}

/** Goes on past a file that cannot be removed: it is there for the next time. */
async function removeOthers(
  directory: string,
  keep: ReadonlySet<string>,
  log: Log,
): Promise<{ readonly files: number; readonly bytes: number }> {
  let files = 0;
  let bytes = 0;
  for (const name of await readdir(directory)) {
    if (keep.has(name)) continue;
    const path = join(directory, name);
    try {
      const { blocks } = await stat(path);
      await systemDisk.unlink(path);
      files += 1;
      bytes += blocks * 512;
    } catch (error) {
      if (!hasErrno(error, "ENOENT"))
        log.warn("images: garbage is left", { path, why: messageChain(error).join(": ") });
    }
  }
  return { files, bytes };
}
