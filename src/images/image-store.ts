/**
 * The images of one root:
 *
 *   index.json, index.lock   names (image-index.ts)
 *   blobs/sha256/<hex>       manifests and configurations
 *   layers/<hex>.erofs       one per diff id, shared by images, immutable
 *   staging/                 work in progress (staging.ts)
 *   use.lock                 shared while files are added or about to be used, exclusive while garbage is removed
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, type Clock, imageLimits, type Log, systemClock } from "../base/index.ts";
import { acquireLock } from "../store/index.ts";
import { type BuiltinOptions, builtinStoreDir, importBuiltins } from "./builtin.ts";
import { collectGarbage, type GarbageDeps } from "./garbage.ts";
import { ImageAddition } from "./image-addition.ts";
import { ImageIndex } from "./image-index.ts";
import { type FoundImage, ImageLookup, imageConfig, imageInfo, imageLayers } from "./image-lookup.ts";
import { NO_USE, type ReadLayerUse, usersOf } from "./layer-use.ts";
import { StoreLayout } from "./layout.ts";
import { removeOrphans } from "./staging.ts";
import type {
  CollectGarbageOptions,
  GarbageReport,
  HeldImage,
  ImageDetails,
  ImageInfo,
  ImageStore,
  ImportOptions,
  PullOptions,
  RemoveImageOptions,
  ResolvedImage,
} from "./types.ts";

export interface ImageStoreDeps {
  /** `<root>/images`; made when it is not there. */
  readonly dir: string;
  readonly log: Log;
  readonly clock?: Clock;
  /** The directory of guest images, with which the built-in images come; without it there are none. */
  readonly guestDir?: string;
  /** What the containers of the root use; nothing unless told. `unknown`: other roots use this store, and no layer is ever removed. */
  readonly layerUse?: ReadLayerUse | "unknown";
}

/** Also removes what dead processes left in the store. */
export async function openImageStore(deps: ImageStoreDeps): Promise<ImageStore> {
  for (const part of ["", "blobs", "blobs/sha256", "layers", "staging"]) {
    await mkdir(join(deps.dir, part), { recursive: true, mode: 0o700 });
  }
  const store = new DiskImageStore(deps);
  await removeOrphans(new StoreLayout(deps.dir).stagingDir);
  return store;
}

/**
 * Makes the built-in images of this host where they are missing or come from another guest image; part of set-up.
 * @throws BelljarError what `import` throws
 */
export async function prepareBuiltins(options: BuiltinOptions): Promise<ImageInfo[]> {
  const dir = builtinStoreDir(options.guestDir);
  return await importBuiltins(await openImageStore({ dir, log: options.log, layerUse: "unknown" }), options);
}

class DiskImageStore implements ImageStore {
  readonly #layout: StoreLayout;
  readonly #index: ImageIndex;
  readonly #lookup: ImageLookup;
  readonly #addition: ImageAddition;
  readonly #garbage: GarbageDeps;

  constructor({ dir, log, guestDir, clock = systemClock, layerUse = async () => NO_USE }: ImageStoreDeps) {
    const layout = new StoreLayout(dir);
    const index = new ImageIndex(dir);
    this.#layout = layout;
    this.#index = index;
    this.#lookup = new ImageLookup({
      layout,
      index,
      log,
      guestDir,
      prepareBuiltins: async () =>
        guestDir !== undefined && process.geteuid?.() === 0 && (await prepareBuiltins({ guestDir, log })).length > 0,
    });
    this.#garbage = { layout, index, log, layerUse: layerUse === "unknown" ? undefined : layerUse };
    this.#addition = new ImageAddition({ layout, index, clock, log, collectGarbage: () => this.#collect(0) });
  }

  async import(path: string, options: ImportOptions = {}): Promise<ImageInfo> {
    return await imageInfo(await this.#addition.import(path, options));
  }

  async pull(reference: string, options: PullOptions = {}): Promise<ImageInfo> {
    return await imageInfo(await this.#addition.pull(reference, options));
  }

  async list(): Promise<ImageInfo[]> {
    const seen = new Map<string, FoundImage>();
    for (const found of await this.#lookup.all()) if (!seen.has(found.name)) seen.set(found.name, found);
    const all: ImageInfo[] = [];
    for (const found of seen.values()) all.push(await imageInfo(found));
    return all.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async inspect(name: string): Promise<ImageDetails> {
    const found = await this.#lookup.find(name);
    const { architecture, os, config } = await imageConfig(found);
    const layers = await imageLayers(found);
    return { ...(await imageInfo(found)), architecture, os, config, layers, source: found.record.source };
  }

  async resolve(name: string): Promise<ResolvedImage> {
    return await resolved(await this.#lookup.find(name));
  }

  async hold(name: string, signal?: AbortSignal): Promise<HeldImage> {
    const found = await this.#lookup.find(name);
    // Nobody removes those.
    if (found.builtin) return { ...(await resolved(found)), [Symbol.asyncDispose]: async () => {} };
    const lock = await acquireLock(this.#layout.useLock, {
      mode: "shared",
      timeoutMs: imageLimits.indexLockTimeoutMs,
      what: "the image store",
      signal,
    });
    try {
      // Anew: it may have gone while the lock was waited for.
      const image = await this.resolve(name);
      return { ...image, [Symbol.asyncDispose]: () => lock.release() };
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  async remove(name: string, options: RemoveImageOptions = {}): Promise<void> {
    const found = await this.#lookup.find(name);
    if (found.builtin) {
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `the image ${found.name} comes with the guest image and cannot be removed`,
        { facts: { image: found.name } },
      );
    }
    if (options.force !== true) await this.#checkUnused(found);
    await this.#index.change((records) => {
      records.delete(found.name);
    });
    await this.#collect(0);
  }

  async collectGarbage(options: CollectGarbageOptions = {}): Promise<GarbageReport> {
    const stagingRemoved = await removeOrphans(this.#layout.stagingDir);
    const collected = await this.#collect(imageLimits.indexLockTimeoutMs, options.unusedImages === true);
    return { ...collected, stagingRemoved };
  }

  /** Of an image with several names all but the last may go. */
  async #checkUnused({ name, record }: FoundImage): Promise<void> {
    const use = await this.#garbage.layerUse?.();
    const users = use === undefined ? [] : usersOf(record, use);
    if (users.length === 0) return;
    const names = [...(await this.#index.read())].filter(([, other]) => other.manifestDigest === record.manifestDigest);
    if (names.length > 1) return;
    throw new BelljarError("IMAGE_IN_USE", `the image ${name} is used by ${users.join(", ")}`, {
      facts: { image: name, digest: record.manifestDigest, sandboxes: users },
      remedy: "Remove the sandboxes first, or its name by force: its layers stay as long as they are used.",
    });
  }

  #collect(lockTimeoutMs: number, unusedImages = false): ReturnType<typeof collectGarbage> {
    return collectGarbage(this.#garbage, { lockTimeoutMs, unusedImages });
  }
}

async function resolved(found: FoundImage): Promise<ResolvedImage> {
  const { config } = await imageConfig(found);
  return { name: found.name, digest: found.record.manifestDigest, config, layers: await imageLayers(found) };
}
