/** `npm run check`: types, format and lint, and the rules of this repository. Everything runs; nothing hides the rest. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { VERSION } from "../src/base/version.ts";
import { packageProgram, repository, runCommand } from "./command.ts";
import { checkGenerated } from "./generate.ts";
import { checkRules, type Finding, readSourceTree } from "./rules/index.ts";

export async function check(): Promise<number> {
  const types = await runCommand(packageProgram("tsc"), ["--noEmit", "-p", "."]);
  const style = await runCommand(packageProgram("biome"), [
    "ci",
    "--max-diagnostics=50",
    `--colors=${process.stdout.isTTY ? "force" : "off"}`,
  ]);
  const findings = [
    ...checkRules(await readSourceTree(repository), repository, homedir()),
    ...(await checkGenerated()),
    ...(await checkVersion()),
  ];
  for (const { severity, path, line, rule, message } of findings) {
    process.stdout.write(`${severity ?? "error"}: ${path}${line === 0 ? "" : `:${line}`}: ${message} [${rule}]\n`);
  }
  const errors = findings.filter(({ severity }) => severity === undefined).length;
  const failed = [
    ...(types.status === 0 ? [] : ["types"]),
    ...(style.status === 0 ? [] : ["format and lint"]),
    ...(errors === 0 ? [] : [`${errors} broken rule${errors === 1 ? "" : "s"}`]),
  ];
  process.stdout.write(failed.length === 0 ? "check: all good\n" : `check: failed: ${failed.join(", ")}\n`);
  return failed.length === 0 ? 0 : 1;
}

async function checkVersion(): Promise<Finding[]> {
  const manifest: unknown = JSON.parse(await readFile(join(repository, "package.json"), "utf8"));
  const version =
    typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : undefined;
  if (version === VERSION) return [];
  const message = `is ${VERSION}, package.json has ${String(version)}`;
  return [{ rule: "version", path: "src/base/version.ts", line: 0, message }];
}
