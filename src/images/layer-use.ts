/** What containers use of the images: asked of whoever knows the sandboxes, anew for each question. */
import type { ImageRecord } from "./image-index.ts";
import { layerFileName } from "./layout.ts";

export interface LayerUse {
  /** Containers in whatever state, with the file names of their layers, bottom first. */
  readonly containers: readonly { readonly sandbox: string; readonly layerFiles: readonly string[] }[];
  /** Sandboxes that are there and cannot be read: they may use anything. */
  readonly unreadable: readonly string[];
}

export type ReadLayerUse = () => Promise<LayerUse>;

export const NO_USE: LayerUse = { containers: [], unreadable: [] };

/** Sandboxes with a container of exactly these layers, each once. */
export function usersOf(record: ImageRecord, use: LayerUse): readonly string[] {
  const wanted = record.diffIds.map(layerFileName).join(" ");
  const users = use.containers.filter(({ layerFiles }) => layerFiles.join(" ") === wanted);
  return [...new Set(users.map(({ sandbox }) => sandbox))];
}
