/** The shape of files: a header comment, a length one can read, folders whose names say something. */
import type { Finding, SourceTree } from "./source-tree.ts";

const FOLDERS = ["src", "agent", "tools", "test", "bench", "fuzz", "examples"];
const WARN_LINES = 300;
const MAX_LINES = 600;
const EMPTY_NAMES = ["utils", "util", "common", "helpers", "misc", "shared", "lib"];

export function checkShape(tree: SourceTree): Finding[] {
  const findings: Finding[] = [];
  for (const { path, text, scanned, isTest } of tree.sources(FOLDERS)) {
    const add = (rule: string, message: string, severity?: "warning"): void => {
      findings.push({ rule, path, line: 0, message, ...(severity === undefined ? {} : { severity }) });
    };
    const first = scanned.comments[0];
    const opens = first?.offset === 0 && (!first.text.startsWith("#!") || scanned.comments[1] !== undefined);
    if (!isTest && !opens) add("file-header", "the file does not begin with a comment that says what it is for");
    const lines = text.split("\n").length - 1;
    if (lines > MAX_LINES) add("file-length", `${lines} lines; ${MAX_LINES} at most`);
    else if (lines > WARN_LINES) {
      add("file-length", `${lines} lines; above ${WARN_LINES} a file should have a good reason`, "warning");
    }
    const empty = path.split("/").find((part) => EMPTY_NAMES.includes(part.replace(/(\.test)?\.ts$/, "")));
    if (empty !== undefined) add("empty-names", `the name ${empty} says nothing about what is inside`);
  }
  return findings;
}
