/**
 * The table of the sources: every file that it names is there, and so is what it says of it. In a row, names in code and quoted
 * tests that follow a file stand in that file; another cell begins anew.
 */
import { dirname, join } from "node:path/posix";
import type { Finding, SourceFile, SourceTree } from "./source-tree.ts";

const PAGE = "docs/reference/sources.md";
const DEFINITION = /^\[([^\]\n]+)\]: (\S+)$/gm;
const TOKEN = /\[([^\]]+)\](?!\()|`([^`]+)`|"([^"]+)"/g;

export function checkSources(tree: SourceTree): Finding[] {
  const page = tree.files.get(PAGE);
  if (page === undefined) return [];
  const findings: Finding[] = [];
  const add = (line: number, message: string): void =>
    void findings.push({ rule: "sources", path: PAGE, line, message });
  const named = new Map<string, SourceFile | undefined>();
  for (const { 1: label = "", 2: target = "", index } of page.text.matchAll(DEFINITION)) {
    const path = join(dirname(PAGE), target);
    named.set(label, tree.files.get(path));
    if (!tree.files.has(path)) add(page.lineAt(index), `names ${path}, which is not there`);
  }
  for (const [index, line] of page.text.split("\n").entries()) {
    if (!line.startsWith("| ")) continue;
    for (const cell of line.split(" | ")) {
      for (const problem of problemsOf(cell, named)) add(index + 1, problem);
    }
  }
  return findings;
}

function problemsOf(cell: string, named: ReadonlyMap<string, SourceFile | undefined>): string[] {
  const problems: string[] = [];
  let file: SourceFile | undefined;
  for (const [, label, code, quoted] of cell.matchAll(TOKEN)) {
    if (label !== undefined) {
      file = named.get(label);
      if (!named.has(label)) problems.push(`names [${label}], which leads nowhere`);
      continue;
    }
    if (file === undefined) continue;
    const { path, text } = file;
    if (code !== undefined && !text.includes(code)) problems.push(`says that ${path} has ${code}, which it has not`);
    if (quoted !== undefined && !text.includes(`"${quoted}"`) && !text.includes(`\`${quoted}\``)) {
      problems.push(`says that ${path} has the test "${quoted}", which it has not`);
    }
  }
  return problems;
}
