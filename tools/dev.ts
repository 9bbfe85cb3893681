/** `sh tools/dev VERB`: what the npm scripts call, on the pinned Node. */
import { build } from "./build.ts";
import { check } from "./check.ts";
import { packageProgram, runCommand } from "./command.ts";
import { generate } from "./generate.ts";
import { setUp } from "./setup.ts";
import { start } from "./start.ts";
import { test, testKvm, testUnit, testVm } from "./test.ts";

/** Each answers the exit status. */
const verbs: Readonly<Record<string, (args: readonly string[]) => Promise<number>>> = {
  start: async () => ((await setUp("run")) ? await start() : 1),
  test: async () => ((await setUp("test")) ? await test() : 1),
  "test-unit": testUnit,
  "test-vm": async (args) => ((await setUp("test")) ? await testVm(args) : 1),
  "test-kvm": async () => ((await setUp("test")) ? await testKvm() : 1),
  check,
  bench: async (args) => ((await setUp("run")) ? await runBench(args) : 1),
  generate,
  format: async () => (await runCommand(packageProgram("biome"), ["check", "--write"])).status,
  build,
};

const [name = "", ...args] = process.argv.slice(2);
const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined;
if (verb === undefined) {
  process.stderr.write(`belljar: unknown verb ${JSON.stringify(name)}; there are ${Object.keys(verbs).join(", ")}\n`);
  process.exitCode = 1;
} else {
  process.exitCode = await verb(args);
}

async function runBench(words: readonly string[]): Promise<number> {
  return (await runCommand(process.execPath, ["bench/main.ts", ...words])).status;
}
