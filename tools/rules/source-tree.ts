/** The files of the repository as the rules see them: path and text, so that a test can hand in a tree of its own. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type ScannedSource, scanSource } from "./scanner.ts";

export interface Finding {
  readonly rule: string;
  readonly path: string;
  /** From 1; 0 when the whole file is meant. */
  readonly line: number;
  readonly message: string;
  /** A warning is shown and does not fail the check. */
  readonly severity?: "warning";
}

export class SourceFile {
  readonly path: string;
  readonly text: string;
  #scanned: ScannedSource | undefined;

  constructor(path: string, text: string) {
    this.path = path;
    this.text = text;
  }

  get scanned(): ScannedSource {
    this.#scanned ??= scanSource(this.text);
    return this.#scanned;
  }

  /** Tests, and what stands beside them to set them up. */
  get isTest(): boolean {
    return /(?:\.test|-fixture)\.ts$|\/testing\//.test(this.path);
  }

  lineAt(offset: number): number {
    return this.text.slice(0, offset).split("\n").length;
  }
}

export class SourceTree {
  readonly files: ReadonlyMap<string, SourceFile>;

  constructor(texts: Readonly<Record<string, string>>) {
    this.files = new Map(Object.entries(texts).map(([path, text]) => [path, new SourceFile(path, text)]));
  }

  /** Sources written by hand in these folders. */
  sources(folders: readonly string[]): SourceFile[] {
    return [...this.files.values()].filter(
      ({ path }) => path.endsWith(".ts") && !path.endsWith(".d.ts") && folders.includes(path.split("/")[0] ?? ""),
    );
  }

  withExtension(extension: string): SourceFile[] {
    return [...this.files.values()].filter((file) => file.path.endsWith(extension));
  }
}

/** Every file that git knows or would add, as text; what is generated and what is not text is left out. */
export async function readSourceTree(root: string): Promise<SourceTree> {
  const list = await promisify(execFile)(
    "git",
    ["-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    { maxBuffer: 64 * 2 ** 20 },
  );
  const texts: Record<string, string> = {};
  for (const path of list.stdout.split("\0")) {
    if (path === "" || path === "package-lock.json" || path === "LICENSE") continue;
    const bytes = await readFile(join(root, path)).catch(() => undefined);
    if (bytes === undefined || bytes.includes(0)) continue;
    texts[path] = bytes.toString("utf8");
  }
  return new SourceTree(texts);
}
