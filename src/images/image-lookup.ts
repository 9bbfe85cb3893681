/**
 * Finds images and tells what there is of them. Those that come with the guest image lie in a store of the same form, read-only,
 * which is looked at second: an image of this store with the same name wins.
 */
import { readFile, stat } from "node:fs/promises";
import { BelljarError, hasErrno, type Log } from "../base/index.ts";
import { builtinStoreDir } from "./builtin.ts";
import { digestOf } from "./digest.ts";
import { parseDocument } from "./document.ts";
import { type ConfigDocument, decodeConfig } from "./image-config.ts";
import { ImageIndex, type ImageRecord } from "./image-index.ts";
import { HEX_PREFIX, pickNamed } from "./image-names.ts";
import { StoreLayout } from "./layout.ts";
import type { ImageInfo, ImageLayer } from "./types.ts";

export interface FoundImage {
  readonly name: string;
  readonly record: ImageRecord;
  readonly layout: StoreLayout;
  readonly builtin: boolean;
}

export interface LookupDeps {
  readonly layout: StoreLayout;
  readonly index: ImageIndex;
  readonly log: Log;
  /** The directory of guest images, with which the built-in images come. */
  readonly guestDir: string | undefined;
  /** Makes the built-in images where set-up did not; answers whether there are new ones. */
  readonly prepareBuiltins: () => Promise<boolean>;
}

export class ImageLookup {
  readonly #deps: LookupDeps;

  constructor(deps: LookupDeps) {
    this.#deps = deps;
  }

  /** This store's, then the guest image's: a name may come twice. */
  async all(): Promise<FoundImage[]> {
    const { layout, index, guestDir } = this.#deps;
    const own = [...(await index.read())].map(([name, record]) => ({ name, record, layout, builtin: false }));
    if (guestDir === undefined) return own;
    const builtins = new StoreLayout(builtinStoreDir(guestDir));
    const others = [...(await new ImageIndex(builtins.dir).read())].map(([name, record]) => ({
      name,
      record,
      layout: builtins,
      builtin: true,
    }));
    return [...own, ...others];
  }

  /** @throws BelljarError `IMAGE_NOT_FOUND` */
  async find(wanted: string): Promise<FoundImage> {
    const found = pickNamed(await this.all(), wanted);
    if (found !== undefined) return found;
    // Where set-up did not make the built-in images, the first one who misses an image does.
    const second = (await this.#deps.prepareBuiltins()) ? pickNamed(await this.all(), wanted) : undefined;
    if (second !== undefined) return second;
    throw new BelljarError("IMAGE_NOT_FOUND", `there is no image ${JSON.stringify(wanted)}`, {
      facts: { image: wanted },
      ...(HEX_PREFIX.test(wanted)
        ? {}
        : { remedy: `See \`belljar image ls\`, or get it with \`belljar image pull ${wanted}\`.` }),
    });
  }
}

export async function imageInfo(found: FoundImage): Promise<ImageInfo> {
  const { name, record, builtin } = found;
  const layers = await imageLayers(found);
  return {
    name,
    digest: record.manifestDigest,
    configDigest: record.configDigest,
    layerCount: layers.length,
    sizeBytes: layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
    createdAt: record.createdAt,
    addedAtMs: record.addedAtMs,
    builtin,
  };
}

/** @throws BelljarError `STATE_CORRUPT` when a layer is missing */
export async function imageLayers({ name, record, layout }: FoundImage): Promise<ImageLayer[]> {
  const layers: ImageLayer[] = [];
  for (const diffId of record.diffIds) {
    const path = layout.layer(diffId);
    try {
      // Blocks, not size: holes take no room.
      layers.push({ diffId, path, sizeBytes: (await stat(path)).blocks * 512 });
    } catch (error) {
      if (!hasErrno(error, "ENOENT")) throw error;
      throw missingPart(name, path, error);
    }
  }
  return layers;
}

/** @throws BelljarError `STATE_CORRUPT` when it is missing or not what its digest says */
export async function imageConfig({ name, record, layout }: FoundImage): Promise<ConfigDocument> {
  const path = layout.blob(record.configDigest);
  const data = await readFile(path).catch((error: unknown) => {
    throw hasErrno(error, "ENOENT") ? missingPart(name, path, error) : error;
  });
  if (digestOf(data) !== record.configDigest) throw missingPart(name, path, undefined);
  return decodeConfig(parseDocument(data, `configuration ${record.configDigest}`));
}

function missingPart(name: string, path: string, cause: unknown): BelljarError {
  return new BelljarError("STATE_CORRUPT", `the image ${name} is damaged: ${path} is not what it was`, {
    facts: { image: name, path },
    remedy: "Remove the image and get it again.",
    cause,
  });
}
