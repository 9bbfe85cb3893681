/** Rules over the whole graph of imports: no cycles, no file that nothing reaches. */
import { importsOf, referencesOf } from "./imports.ts";
import type { Finding, SourceTree } from "./source-tree.ts";

const FOLDERS = ["src", "agent", "tools", "bench", "test", "fuzz", "examples"];

/** Files that somebody else starts: people, package.json, the guest image's build, node's test runner. */
const ENTRY_POINTS = [
  "src/cli/main.ts",
  "src/sdk/index.ts",
  "agent/main.ts",
  "tools/dev.ts",
  "bench/main.ts",
  "test/support/preload.ts",
  "test/fault/kill-anywhere.ts",
  "test/soak/checkpoints.ts",
  "test/soak/postgres.ts",
  "test/soak/forks.ts",
  "test/soak/soak.ts",
  "test/load/main.ts",
  "bench/sharing.ts",
];

/** Cycles of imports, those of types included: a file that can only be understood with its user is in the wrong place. */
export function checkCycles(tree: SourceTree): Finding[] {
  const edges = new Map<string, Set<string>>();
  for (const file of tree.sources(FOLDERS)) {
    const targets = importsOf(file, tree).flatMap(({ target }) => (target === undefined ? [] : [target]));
    edges.set(file.path, new Set(targets));
  }
  return components(edges)
    .filter((members) => members.length > 1 || edges.get(members[0] ?? "")?.has(members[0] ?? "") === true)
    .map((members) => {
      const sorted = members.toSorted();
      const message = `these files import one another: ${sorted.join(", ")}`;
      return { rule: "cycles", path: sorted[0] ?? "", line: 0, message };
    });
}

/** Files of the product that no entry point reaches. A file that only its own test reaches is dead too. */
export function checkDeadFiles(tree: SourceTree): Finding[] {
  const reached = reach(
    tree,
    tree.sources(FOLDERS).flatMap(({ path, isTest }) => (ENTRY_POINTS.includes(path) || isTest ? [path] : [])),
  );
  const reachedByProduct = reach(tree, ENTRY_POINTS);
  return tree
    .sources(FOLDERS)
    .filter(({ path, isTest }) => {
      if (isTest) return false;
      const isProduct = path.startsWith("src/") || path.startsWith("agent/");
      return !(isProduct ? reachedByProduct : reached).has(path);
    })
    .filter(({ path }) => !path.startsWith("examples/") && !path.startsWith("fuzz/"))
    .map(({ path }) => ({ rule: "dead-files", path, line: 0, message: "no entry point reaches this file" }));
}

function reach(tree: SourceTree, roots: readonly string[]): Set<string> {
  const reached = new Set<string>();
  const waiting = roots.filter((path) => tree.files.has(path));
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const file = tree.files.get(path);
    if (file === undefined || reached.has(path)) continue;
    reached.add(path);
    if (path.endsWith(".ts")) waiting.push(...referencesOf(file, tree));
  }
  return reached;
}

/** Strongly connected components (Tarjan), each with every file that can reach every other. */
function components(edges: ReadonlyMap<string, ReadonlySet<string>>): string[][] {
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (node: string): void => {
    order.set(node, order.size);
    low.set(node, order.get(node) ?? 0);
    stack.push(node);
    for (const next of edges.get(node) ?? []) {
      if (!order.has(next)) visit(next);
      if (stack.includes(next)) low.set(node, Math.min(low.get(node) ?? 0, low.get(next) ?? 0));
    }
    if (low.get(node) !== order.get(node)) return;
    found.push(stack.splice(stack.indexOf(node)));
  };
  for (const node of edges.keys()) if (!order.has(node)) visit(node);
  return found;
}
