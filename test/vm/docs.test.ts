/**
 * The commands of the tutorial and the guides, run as they stand there, page by page; and what the pages say they print. `...` in
 * what is printed stands for anything; a line of it alone for any number of lines. And the programs, with what stands below them.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { cliEnvironment, type TestScope, tempDir, test } from "../support/harness.ts";

const repository = join(import.meta.dirname, "../..");
const docs = join(repository, "docs");
const TIMEOUT_MS = 120_000;

interface Command {
  readonly line: string;
  readonly printed: readonly string[];
}

function commandsOf(page: string): Command[] {
  const commands: { line: string; printed: string[] }[] = [];
  for (const [, block = ""] of page.matchAll(/^```console\n(.*?)^```/gms)) {
    for (const line of block.trimEnd().split("\n")) {
      if (line.startsWith("$ ")) commands.push({ line: line.slice(2), printed: [] });
      else commands.at(-1)?.printed.push(line);
    }
  }
  return commands;
}

function patternOf(printed: readonly string[]): RegExp {
  const lines = printed.map((line) =>
    line === "..." ? "(?:.*\\n)*?" : `${line.split("...").map(escaped).join(".*")}\\n`,
  );
  return new RegExp(`^${lines.join("")}$`);
}

function escaped(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

async function follow(t: TestScope, page: string, text: string): Promise<void> {
  const cwd = await tempDir(t);
  const path = [join(repository, "bin"), process.env["PATH"] ?? ""].join(delimiter);
  const options = { cwd, env: { ...cliEnvironment(t), PATH: path }, timeout: TIMEOUT_MS };
  const commands = commandsOf(text);
  assert.ok(commands.length > 0);
  for (const { line, printed } of commands) {
    const { status, stdout, stderr } = await new Promise<{ status: unknown; stdout: string; stderr: string }>(
      (resolve) =>
        execFile("sh", ["-c", line], options, (error, stdout, stderr) =>
          resolve({ status: error === null ? 0 : (error.code ?? error.signal), stdout, stderr }),
        ),
    );
    assert.equal(status, 0, `${page}: ${line}: ${stderr}`);
    assert.match(stdout, patternOf(printed), `${page}: ${line}`);
  }
}

/** Those that say so. */
const MARK = "run by test/vm/docs.test.ts";

const names = (await readdir(docs, { recursive: true })).filter((name) => name.endsWith(".md")).sort();
const pages = await Promise.all(names.map(async (name) => [name, await readFile(join(docs, name), "utf8")] as const));

for (const [page, text] of pages.filter(([, each]) => each.includes(MARK))) {
  test(`docs/${page}: every command does what the page says`, (t) => follow(t, page, text), { timeoutMs: 600_000 });
}

interface Program {
  readonly page: string;
  readonly code: string;
  readonly printed: string;
}

/** Those that are whole; what is a piece of one imports nothing. */
const programs: readonly Program[] = pages.flatMap(([page, text]) =>
  [...text.matchAll(/^```ts\n(.*?)^```\n(?:\n```text\n(.*?)^```)?/gms)]
    .map(([, code = "", printed = ""]) => ({ page, code, printed }))
    .filter(({ code }) => code.includes('from "belljar"')),
);

test(
  "every program prints what the page says",
  async (t) => {
    assert.ok(programs.length >= 4);
    const dir = await tempDir(t);
    const sdk = JSON.stringify(join(repository, "src/sdk/index.ts"));
    for (const [index, { page, code, printed }] of programs.entries()) {
      // They take the host's directories; the test has its own.
      const source = code
        .replace('"belljar"', sdk)
        .replace(/^import \{/m, "import { resolvePaths,")
        .replaceAll("Runtime.connect()", "Runtime.connect({ paths: resolvePaths({}, process.env, 0) })");
      const file = join(dir, `program-${index}.ts`);
      await writeFile(file, source);
      const options = { env: cliEnvironment(t), timeout: TIMEOUT_MS };
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], options);
      assert.equal(stderr, "", page);
      assert.equal(stdout, printed, page);
    }
  },
  { timeoutMs: 600_000 },
);
