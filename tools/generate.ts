/** Everything in the repository that is made from something else in it: protocol code and pages of reference. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { packageProgram, repository, runCommand } from "./command.ts";
import { errorsPagePath, renderErrorsPage } from "./errors-page.ts";
import { apiPagePath, renderApiPage } from "./reference/api.ts";
import { cliPagePath, renderCliPage } from "./reference/cli.ts";
import { configurationPagePath, renderConfigurationPage } from "./reference/configuration.ts";
import { renderSdkPage, sdkPagePath } from "./reference/sdk.ts";
import type { Finding } from "./rules/index.ts";

const GENERATED_CODE = "src/protocol/generated";

export async function generate(): Promise<number> {
  for (const [path, text] of await renderPages()) {
    await mkdir(dirname(join(repository, path)), { recursive: true });
    await writeFile(join(repository, path), text);
  }
  return (await generateCode()).status;
}

async function renderPages(): Promise<ReadonlyMap<string, string>> {
  return new Map([
    [errorsPagePath, renderErrorsPage()],
    [cliPagePath, renderCliPage()],
    [sdkPagePath, await renderSdkPage(repository)],
    [configurationPagePath, await renderConfigurationPage(repository)],
    [apiPagePath, await renderApiPage(repository)],
  ]);
}

/** What is checked in and is not what its source makes today. */
export async function checkGenerated(): Promise<Finding[]> {
  const findings: Finding[] = [];
  const stale = (path: string): void => {
    findings.push({ rule: "generated", path, line: 0, message: "not what its source makes; run `npm run generate`" });
  };
  for (const [path, text] of await renderPages()) {
    const page = await readFile(join(repository, path), "utf8").catch(() => undefined);
    if (page !== text) stale(path);
  }

  const directory = await mkdtemp(join(tmpdir(), "belljar-generate-"));
  try {
    const { status, output } = await generateCode(directory);
    if (status !== 0) {
      return [
        ...findings,
        { rule: "generated", path: "buf.gen.yaml", line: 0, message: `buf failed: ${output.trim()}` },
      ];
    }
    const wanted = await readFiles(join(directory, GENERATED_CODE));
    const present = await readFiles(join(repository, GENERATED_CODE));
    for (const name of new Set([...wanted.keys(), ...present.keys()])) {
      if (wanted.get(name) !== present.get(name)) stale(join(GENERATED_CODE, name));
    }
    return findings;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** buf finds its plugin in PATH. */
async function generateCode(outDir?: string): Promise<{ status: number; output: string }> {
  const args = outDir === undefined ? ["generate"] : ["generate", "--output", outDir];
  const path = `${dirname(packageProgram("buf"))}:${dirname(process.execPath)}:${process.env["PATH"] ?? ""}`;
  return await runCommand(packageProgram("buf"), args, { env: { PATH: path }, capture: outDir !== undefined });
}

async function readFiles(directory: string): Promise<Map<string, string>> {
  const items = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = items.filter((item) => item.isFile()).map((item) => join(item.parentPath, item.name));
  const texts = files.map(async (path) => [path.slice(directory.length + 1), await readFile(path, "utf8")] as const);
  return new Map(await Promise.all(texts));
}
