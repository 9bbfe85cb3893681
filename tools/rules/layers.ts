/** The ladder of ARCHITECTURE.md: a folder imports only from folders below it, and from another folder only its door. */
import { type Import, importsOf } from "./imports.ts";
import type { Finding, SourceFile, SourceTree } from "./source-tree.ts";

/** Folders of src/ from the top down; those of one row do not import one another. */
const LADDER: readonly (readonly string[])[] = [
  ["cli"],
  ["sdk"],
  ["daemon"],
  ["runtime"],
  ["checkpoint"],
  ["container"],
  ["sandbox"],
  ["devices", "hypervisor", "agent-client", "network", "images", "guest", "resources", "volumes"],
  ["store"],
  ["protocol"],
  ["base"],
];

/** What a part may know of the hypervisor: types only. */
const INTERFACE = "src/hypervisor/interface.ts";
const AGENT_MAY_IMPORT = ["protocol", "base"];

export function checkLayers(tree: SourceTree): Finding[] {
  const findings: Finding[] = [];
  for (const file of tree.sources(["src", "agent"])) {
    for (const found of importsOf(file, tree)) {
      const message = problemOf(file, found);
      if (message !== undefined) findings.push({ rule: "layers", path: file.path, line: found.line, message });
    }
  }
  return findings;
}

function problemOf(file: SourceFile, { specifier, target, typeOnly }: Import): string | undefined {
  if (!specifier.startsWith(".")) return undefined;
  if (target === undefined) {
    return specifier.includes("/generated/") ? undefined : `imports ${specifier}, which is not there`;
  }
  const from = folderOf(file.path);
  const to = folderOf(target);
  // A unit test may set its subject up with what tests share, and with the doors of whatever it needs.
  if (file.isTest && (to.top === "test" || isDoor(target, to))) return undefined;
  if (from.top === "agent") return agentProblem(target, to);
  if (to.top !== "src") return `imports ${target}; src/ imports nothing outside of src/`;
  if (from.name === to.name) return undefined;
  const rowFrom = LADDER.findIndex((row) => row.includes(from.name));
  const rowTo = LADDER.findIndex((row) => row.includes(to.name));
  if (rowFrom === -1 || rowTo === -1) {
    return `the folder src/${rowFrom === -1 ? from.name : to.name} has no place in the ladder`;
  }
  if (target === INTERFACE) {
    if (rowFrom > rowTo) return `imports ${target} from below it`;
    return typeOnly || rowFrom < rowTo ? undefined : `imports more than types from ${target}`;
  }
  if (rowTo === rowFrom) return `src/${from.name} and src/${to.name} are parts; parts do not import one another`;
  if (rowTo < rowFrom) return `src/${from.name} imports src/${to.name}, which is above it`;
  // The agent's bundle holds src/protocol/ too: it takes single files, to stay small.
  if (from.name === "protocol") return undefined;
  return isDoor(target, to) ? undefined : `imports ${target} past its folder's door, src/${to.name}/index.ts`;
}

function agentProblem(target: string, to: Folder): string | undefined {
  if (to.top === "agent") return undefined;
  if (to.top === "src" && AGENT_MAY_IMPORT.includes(to.name)) return undefined;
  return `imports ${target}; agent/ imports only src/protocol/ and src/base/`;
}

interface Folder {
  readonly top: string;
  /** First folder below src/; a file in src/ itself has none. */
  readonly name: string;
}

function folderOf(path: string): Folder {
  const parts = path.split("/");
  return { top: parts[0] ?? "", name: parts.length > 2 ? (parts[1] ?? "") : "" };
}

function isDoor(path: string, folder: Folder): boolean {
  return path === `src/${folder.name}/index.ts`;
}
