/** Which file imports which, found in scanned sources. */
import { dirname, join } from "node:path/posix";
import type { SourceFile, SourceTree } from "./source-tree.ts";

export interface Import {
  readonly specifier: string;
  readonly line: number;
  /** `import type`: gone at run time. */
  readonly typeOnly: boolean;
  /** Path in the tree; undefined for packages and for files that are not there. */
  readonly target: string | undefined;
}

/** `import ... from "x"`, `export ... from "x"`, `import "x"` and `import("x")`, as far as the opening quote. */
const IMPORT = /\b(?:import|export)\s+(type\s)?(?:[\w$*\s{},]*?\bfrom\s*)?(["'])|\bimport\s*\(\s*(["'])/g;

export function importsOf(file: SourceFile, tree: SourceTree): Import[] {
  const { code, strings } = file.scanned;
  const byOffset = new Map(strings.map((literal) => [literal.offset, literal.text]));
  const found: Import[] = [];
  for (const match of code.matchAll(IMPORT)) {
    const specifier = byOffset.get(match.index + match[0].length - 1);
    if (specifier === undefined) continue;
    found.push({
      specifier,
      line: file.lineAt(match.index),
      typeOnly: match[1] !== undefined,
      target: resolve(file.path, specifier, tree),
    });
  }
  return found;
}

/** Files that this one names: its imports, and strings that are the path of a file (`new URL("./worker.ts", ...)`). */
export function referencesOf(file: SourceFile, tree: SourceTree): Set<string> {
  const targets = new Set<string>();
  for (const { target } of importsOf(file, tree)) if (target !== undefined) targets.add(target);
  for (const { text } of file.scanned.strings) {
    if (!text.endsWith(".ts")) continue;
    for (const path of [join(dirname(file.path), text), text]) if (tree.files.has(path)) targets.add(path);
  }
  return targets;
}

function resolve(from: string, specifier: string, tree: SourceTree): string | undefined {
  if (!specifier.startsWith(".")) return undefined;
  const path = join(dirname(from), specifier);
  return tree.files.has(path) ? path : undefined;
}
