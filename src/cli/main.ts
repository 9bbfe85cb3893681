#!/usr/bin/env node
/** Entry of the command line: builds the parser, runs one command, turns whatever went wrong into one line and a status. */
import { type Command, CommanderError } from "commander";
import { BelljarError } from "../base/index.ts";
import type { ContextHolder } from "./context.ts";
import { EXIT_BELLJAR_FAILED, exitStatusOf } from "./exit-status.ts";
import { createOutput } from "./output.ts";
import { buildProgram } from "./program.ts";
import { checkPrinted, watchPrinting } from "./standard-output.ts";

async function main(): Promise<number> {
  const holder: ContextHolder = { output: undefined };
  let status = 0;
  const program = buildProgram(holder, (value) => {
    status = value;
  });
  try {
    await parse(program);
    return status;
  } catch (thrown) {
    // Commander has printed its own message by now.
    if (thrown instanceof CommanderError) return EXIT_BELLJAR_FAILED;
    const error = BelljarError.from(thrown);
    const output =
      holder.output ?? createOutput({ json: false, logLevel: "warn", stdout: process.stdout, stderr: process.stderr });
    output.error(error);
    return exitStatusOf(error);
  }
}

async function parse(program: Command): Promise<void> {
  try {
    await program.parseAsync(process.argv);
  } catch (thrown) {
    // Asking for help or the version is no failure.
    if (!(thrown instanceof CommanderError) || thrown.exitCode !== 0) throw thrown;
  }
  await checkPrinted(process.stdout);
}

watchPrinting(process.stdout);
watchPrinting(process.stderr);

const status = await main();
// Standard input may still be open and would keep the process; what was written must be out first.
process.exitCode = status;
process.stdin.destroy();
