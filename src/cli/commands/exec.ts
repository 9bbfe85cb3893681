/** `belljar exec`: a further command in a container. */
import type { Command } from "commander";
import { attachStreams } from "../attach.ts";
import { collect } from "../container-options.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { SignalRelay } from "../signals.ts";
import { findTarget } from "../target.ts";
import { checkTerminal, terminalSize } from "../terminal.ts";

interface ExecCommandOptions extends CommonOptions {
  readonly detach?: boolean;
  readonly interactive?: boolean;
  readonly tty?: boolean;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly capAdd?: readonly string[];
  readonly capDrop?: readonly string[];
}

export function addExecCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("exec")
    .summary("run a further command in a container")
    .description("The exit status is the command's own, or 125, 126 and 127 as `run` has them.")
    .argument("<sandbox[/container]>", "by id, the beginning of an id, or name")
    .argument("<command...>", "command and arguments")
    .option("-d, --detach", "leave it running")
    .option("-i, --interactive", "connect standard input")
    .option("-t, --tty", "give the command a terminal")
    .option("-e, --env <K=V>", "environment variable; K alone takes the value from here", collect)
    .option("-w, --workdir <dir>", "working directory")
    .option("-u, --user <user[:group]>", "user by name or number, from the container's own files")
    .option("--cap-add <cap>", "add a capability to the container's own", collect)
    .option("--cap-drop <cap>", "drop one of the container's capabilities, or ALL", collect)
    .passThroughOptions();
  withCommonOptions(command).action(async (name: string, args: string[], options: ExecCommandOptions) => {
    const interactive = options.interactive === true;
    const tty = options.tty === true;
    const detach = options.detach === true;
    if (!detach) checkTerminal({ interactive, tty });
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    const { container } = await findTarget(runtime, name);
    const child = await container.spawn(args, {
      env: options.env ?? [],
      clientEnvironment: context.environment,
      cwd: options.workdir,
      user: options.user,
      capAdd: options.capAdd,
      capDrop: options.capDrop,
      tty,
      stdin: interactive && !detach,
      terminalSize: terminalSize(),
      signal: relay.signal,
      endOnAbort: !detach,
    });
    if (detach) {
      if (context.output.json) context.output.object({ container: container.id, process: child.id });
      return;
    }
    const status = await attachStreams(child, { relay, interactive, tty });
    setStatus(status ?? 0);
    // One that was left alone is still wanted; a failure to forget it is no failure of the command.
    if (status !== undefined) await child.release().catch(() => {});
  });
}
