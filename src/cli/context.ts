/** What every command is handed: its streams, its output, a runtime opened on demand. The only place that reads the environment. */
import { type Command, Option } from "commander";
import { createLog, type Log, type LogLevel, logLevels } from "../base/index.ts";
import { type PathOptions, type Paths, Runtime, resolvePaths } from "../sdk/index.ts";
import { createOutput, type Output } from "./output.ts";

/** Options that every command takes. */
export interface CommonOptions {
  readonly root?: string;
  readonly json?: boolean;
  readonly logLevel: LogLevel;
}

export interface Context {
  readonly output: Output;
  readonly log: Log;
  readonly paths: Paths;
  readonly environment: NodeJS.ProcessEnv;
  openRuntime(signal?: AbortSignal): Promise<Runtime>;
}

/** Set before the first output: what a failure that happens later is printed with. */
export interface ContextHolder {
  output: Output | undefined;
}

export function withCommonOptions(command: Command): Command {
  return command
    .addOption(new Option("--root <dir>", "directory of all state (BELLJAR_ROOT; /var/lib/belljar for root)"))
    .addOption(new Option("--json", "print JSON: one object, or one per line"))
    .addOption(
      new Option("--log-level <level>", "what to log on standard error").choices([...logLevels]).default("warn"),
    );
}

export function createContext(options: CommonOptions, holder: ContextHolder): Context {
  const environment = process.env;
  const output = createOutput({
    json: options.json === true,
    logLevel: options.logLevel,
    stdout: process.stdout,
    stderr: process.stderr,
  });
  holder.output = output;
  const log = createLog({
    level: options.logLevel,
    json: false,
    write: (line) => process.stderr.write(line),
  });
  const pathOptions: PathOptions = { root: options.root };
  const paths = resolvePaths(pathOptions, environment, process.getuid?.() ?? 0);
  return {
    output,
    log,
    paths,
    environment,
    openRuntime: (signal) => Runtime.open({ paths, log, signal }),
  };
}
