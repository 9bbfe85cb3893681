/** What every command is handed: its streams, its output, a runtime when it asks for one. The only place that reads the environment. */
import { type Command, Option } from "commander";
import { createLog, type Log, type LogLevel, logLevels } from "../base/index.ts";
import type { ConnectedDaemon, HostParts, Paths, Runtime } from "../sdk/index.ts";
import { createOutput, type Output } from "./output.ts";

/** Options that every command takes. */
export interface CommonOptions {
  readonly root?: string;
  readonly json?: boolean;
  readonly logLevel: LogLevel;
}

const COMMON_NAMES = ["root", "json", "logLevel"] as const;

export interface Context {
  readonly output: Output;
  readonly log: Log;
  readonly environment: NodeJS.ProcessEnv;
  paths(): Promise<Paths>;
  /** The root's sandboxes, through its daemon, which is started when there is none. */
  connect(signal?: AbortSignal): Promise<Runtime>;
  /** Images and guest images, without a daemon. */
  host(): Promise<HostParts>;
  /** The daemon itself, if there is one. */
  daemon(): Promise<ConnectedDaemon | undefined>;
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

/** The same before the command, as in `belljar --root DIR ps`; what stands behind it counts more. */
export function handDownCommonOptions(program: Command): void {
  const groups = program.commands.filter(({ commands }) => commands.length > 0);
  for (const each of [program, ...groups]) withCommonOptions(each);
  program.hook("preAction", (_, command) => {
    for (const name of COMMON_NAMES) {
      const above: Command[] = [];
      for (let each = command.parent; each !== null; each = each.parent) above.push(each);
      const said = above.find((each) => each.getOptionValueSource(name) === "cli");
      if (said === undefined || command.getOptionValueSource(name) === "cli") continue;
      command.setOptionValueWithSource(name, said.getOptionValue(name), "cli");
    }
  });
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
    json: options.json === true,
    write: (line) => process.stderr.write(line),
  });
  // Loaded when a command needs it: `version` and `--help` do without.
  const load = (): Promise<typeof import("../sdk/index.ts")> => import("../sdk/index.ts");
  const paths = async (): Promise<Paths> =>
    (await load()).resolvePaths({ root: options.root }, environment, process.getuid?.() ?? 0);
  const isTalkative = process.stderr.isTTY || options.logLevel === "info" || options.logLevel === "debug";
  return {
    output,
    log,
    environment,
    paths,
    connect: async (signal) =>
      await (await load()).Runtime.connect({
        paths: await paths(),
        log,
        signal,
        poolSize: (await load()).resolvePoolSize(environment),
        spareCount: (await load()).resolveSpareCount(environment),
        onDaemonStarted: (pid) => {
          if (isTalkative) process.stderr.write(`belljar: started a daemon (pid ${pid})\n`);
        },
      }),
    host: async () => new (await load()).LazyHost(await paths(), log),
    daemon: async () => {
      const { connectDaemon, daemonSocketPath } = await load();
      const all = await paths();
      try {
        return await connectDaemon({ paths: all, log, socketPath: daemonSocketPath(all.run), startDaemon: false });
      } catch (error) {
        if (isUnavailable(error)) return undefined;
        throw error;
      }
    },
  };
}

function isUnavailable(error: unknown): boolean {
  return error instanceof Error && "reason" in error && error.reason === "DAEMON_UNAVAILABLE";
}
