/** Links of the documentation: every file and every anchor that a page names is there. */
import { dirname, join } from "node:path/posix";
import type { Finding, SourceTree } from "./source-tree.ts";

const LINK = /\[(?:[^\]\n]|\n(?!\n))*\]\(([^)\s]+)\)/g;

/** `directories` are the folders of the tree: a link may name one. */
export function checkLinks(tree: SourceTree): Finding[] {
  const directories = new Set<string>([""]);
  for (const path of tree.files.keys()) {
    for (let folder = dirname(path); folder !== "."; folder = dirname(folder)) directories.add(folder);
  }
  const findings: Finding[] = [];
  for (const page of tree.withExtension(".md")) {
    const text = withoutCode(page.text);
    for (const match of text.matchAll(LINK)) {
      const problem = problemOf(page.path, match[1] ?? "", tree, directories);
      if (problem !== undefined) {
        findings.push({ rule: "links", path: page.path, line: page.lineAt(match.index), message: problem });
      }
    }
  }
  return findings;
}

function problemOf(from: string, link: string, tree: SourceTree, directories: ReadonlySet<string>): string | undefined {
  if (/^[a-z][a-z0-9+.-]*:/.test(link)) return undefined;
  const [path = "", anchor] = link.split("#", 2);
  const target = path === "" ? from : join(dirname(from), path).replace(/\/$/, "");
  const file = tree.files.get(target);
  if (file === undefined) {
    const exists = directories.has(target === "." ? "" : target) || target === "LICENSE";
    return exists ? undefined : `links to ${target}, which is not there`;
  }
  if (anchor === undefined || anchor === "" || !target.endsWith(".md")) return undefined;
  return anchorsOf(file.text).has(anchor) ? undefined : `links to #${anchor}, which ${target} does not have`;
}

/** Anchors as GitHub makes them: of headings, numbered when they repeat, and of `<a id="...">`. */
export function anchorsOf(markdown: string): Set<string> {
  const anchors = new Set<string>();
  for (const match of markdown.matchAll(/<a\s+(?:id|name)="([^"]+)"/g)) anchors.add(match[1] ?? "");
  for (const match of withoutFences(markdown).matchAll(/^#{1,6}\s+(.+?)\s*#*$/gm)) {
    const heading = (match[1] ?? "").replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1");
    const base = heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .trim()
      .replaceAll(/\s/g, "-");
    let anchor = base;
    for (let count = 1; anchors.has(anchor); count += 1) anchor = `${base}-${count}`;
    anchors.add(anchor);
  }
  return anchors;
}

function withoutFences(markdown: string): string {
  return markdown.replaceAll(/^( *)(```|~~~)[\s\S]*?^\1\2/gm, (block) => block.replaceAll(/[^\n]/g, " "));
}

function withoutCode(markdown: string): string {
  return withoutFences(markdown).replaceAll(/`[^`\n]*`/g, (code) => " ".repeat(code.length));
}
