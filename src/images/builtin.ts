/**
 * The images that come with the guest image. Set-up makes them once per host, in a store beside the guest images
 * (`<guest>/images`), and every root's store looks into that one too: a fresh root has them at once, and they share their
 * pages in memory. Of `<guest>/<digest>/`, builtin.json and the layers it names are read; docs of the format: guest-image/.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, checkName, hasErrno, type Log } from "../base/index.ts";
import { type Fields, parseDocument } from "./document.ts";
import { decodeConfig } from "./image-config.ts";
import type { ImageConfig, ImageInfo, ImageStore, ImportOptions } from "./types.ts";

export interface BuiltinOptions {
  /** The directory of guest images of this host. */
  readonly guestDir: string;
  readonly log: Log;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: (step: string) => void;
}

const DIGEST = /^[0-9a-f]{64}$/;

export function builtinStoreDir(guestDir: string): string {
  return join(guestDir, "images");
}

/**
 * Imports into `store` what the current guest image brings and the store does not have from exactly that guest image.
 * Does nothing when there is no guest image. Answers the images imported.
 */
export async function importBuiltins(store: ImageStore, options: BuiltinOptions): Promise<ImageInfo[]> {
  const digest = await currentGuest(options.guestDir);
  if (digest === undefined) return [];
  const directory = join(options.guestDir, digest);
  const document = parseDocument(await readFile(join(directory, "builtin.json")), "builtin.json");
  const imported: ImageInfo[] = [];
  const present = new Map((await store.list()).map((info) => [info.name, info]));
  for (const name of document.keys()) {
    const fields = document.object(name);
    if (fields === undefined) continue;
    // The guest image's digest covers the layer and its configuration: same label, same image.
    const label = `guest image ${digest}`;
    const there = present.has(`${name}:latest`) ? await store.inspect(name) : undefined;
    if (there?.source === label) continue;
    options.progress?.(`built-in image ${name}`);
    const imports: ImportOptions = {
      name: checkName(name, "built-in image"),
      kind: "rootfs",
      config: configOf(fields),
      source: label,
      signal: options.signal,
    };
    imported.push(await store.import(join(directory, checkName(fields.needText("layer"), "built-in layer")), imports));
  }
  return imported;
}

function configOf(fields: Fields): ImageConfig {
  return decodeConfig(fields).config;
}

async function currentGuest(guestDir: string): Promise<string | undefined> {
  try {
    const digest = (await readFile(join(guestDir, "current"), "utf8")).trim();
    if (DIGEST.test(digest)) return digest;
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return undefined;
    throw error;
  }
  throw new BelljarError("GUEST_IMAGE_CORRUPT", `${join(guestDir, "current")} does not name a guest image`);
}
