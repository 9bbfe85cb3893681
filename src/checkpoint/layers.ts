/** Where a copy finds the read-only disks of its source: where they were, among this root's images, or with the checkpoint. */
import { access } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Snapshot } from "./snapshot.ts";

export interface FoundLayers {
  /** Of disks that are elsewhere now, by serial number. */
  readonly paths: ReadonlyMap<string, string>;
  /** Files of the checkpoint that the copy needs under names of its own. */
  readonly own: readonly string[];
}

/** What is nowhere is left as it is: who starts the copy says so. */
export async function findLayers(snapshot: Snapshot, layersDir: string, disksDir: string): Promise<FoundLayers> {
  const paths = new Map<string, string>();
  const own = new Set<string>();
  const frozen = new Set(snapshot.disks.map(({ serial }) => serial));
  for (const { serial, path } of snapshot.state.containers.flatMap(({ disks }) => disks)) {
    if (frozen.has(serial) || paths.has(serial) || (await isThere(path))) continue;
    const name = basename(path);
    const carried = snapshot.layers.find((each) => basename(each) === name);
    if (await isThere(join(layersDir, name))) paths.set(serial, join(layersDir, name));
    else if (carried !== undefined) {
      own.add(carried);
      paths.set(serial, join(disksDir, name));
    }
  }
  return { paths, own: [...own] };
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
