/** No text names the machine it was written on: the place of the clone, the folder above it, the home directory. */
import { dirname } from "node:path";
import type { Finding, SourceTree } from "./source-tree.ts";

/** Folders that stand on every system: a clone may lie in one, and text may name it. */
const SYSTEM_FOLDERS = ["/", "/tmp", "/root", "/home", "/srv", "/opt", "/mnt", "/var", "/var/tmp", "/usr", "/usr/src"];

export function checkPlaces(tree: SourceTree, cloneDir: string, homeDir: string): Finding[] {
  const places = [cloneDir, dirname(cloneDir), homeDir].filter((place) => !SYSTEM_FOLDERS.includes(place));
  const findings: Finding[] = [];
  for (const file of tree.files.values()) {
    for (const place of places) {
      const offset = indexOfPlace(file.text, place);
      if (offset === -1) continue;
      const message = `names ${place}, a place on one machine`;
      findings.push({ rule: "machine-paths", path: file.path, line: file.lineAt(offset), message });
    }
  }
  return findings;
}

/** Where `place` stands as a path of its own, not as the end of a longer one or the start of a longer name. */
function indexOfPlace(text: string, place: string): number {
  for (let at = text.indexOf(place); at !== -1; at = text.indexOf(place, at + 1)) {
    if (!/[\w.}-]/.test(text[at - 1] ?? " ") && text[at + place.length] === "/") return at;
  }
  return -1;
}
