/** The rules of this repository over its own sources; `npm run check` runs them all. */
import { checkBanned } from "./banned.ts";
import { checkCycles, checkDeadFiles } from "./graph.ts";
import { checkLayers } from "./layers.ts";
import { checkLinks } from "./links.ts";
import { checkPlaces } from "./places.ts";
import { checkShape } from "./shape.ts";
import type { Finding, SourceTree } from "./source-tree.ts";
import { checkSources } from "./sources.ts";

export { type Finding, readSourceTree, SourceTree } from "./source-tree.ts";

export function checkRules(tree: SourceTree, cloneDir: string, homeDir: string): Finding[] {
  return [
    ...checkLayers(tree),
    ...checkCycles(tree),
    ...checkDeadFiles(tree),
    ...checkBanned(tree),
    ...checkShape(tree),
    ...checkLinks(tree),
    ...checkSources(tree),
    ...checkPlaces(tree, cloneDir, homeDir),
  ];
}
