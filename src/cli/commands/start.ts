/** `belljar start`: what was created and not started, or has stopped. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { runInForeground } from "../foreground.ts";
import { SignalRelay } from "../signals.ts";
import { forEachTarget, type Target } from "../target.ts";
import { checkTerminal, terminalSize } from "../terminal.ts";

interface StartOptions extends CommonOptions {
  readonly attach?: boolean;
  readonly interactive?: boolean;
}

export function addStartCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("start")
    .summary("start sandboxes or containers that are there")
    .argument("<sandbox[/container]...>", "by id, the beginning of an id, or name")
    .option("-a, --attach", "connect its output, and end with its exit status")
    .option("-i, --interactive", "connect standard input too");
  withCommonOptions(command).action(async (names: string[], options: StartOptions) => {
    const interactive = options.interactive === true;
    const attach = options.attach === true || interactive;
    if (attach && names.length > 1) {
      throw new BelljarError("INVALID_ARGUMENT", "only one can be started and attached to at once");
    }
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    await forEachTarget(runtime, context.output, names, async (target, name) => {
      const info = await target.container.info();
      if (attach) checkTerminal({ interactive, tty: info.tty });
      await start(target, relay.signal);
      if (attach) setStatus((await runInForeground(target.container, { relay, interactive, tty: info.tty })) ?? 0);
      else if (context.output.json) context.output.object({ name, id: target.sandbox.id });
      else context.output.line(name);
    });
  });
}

/** A sandbox that runs already may have a first container that has ended. */
async function start({ sandbox, container, isContainer }: Target, signal: AbortSignal): Promise<void> {
  const { state } = await sandbox.info();
  if (isContainer || state === "running") await container.start({ signal, terminalSize: terminalSize() });
  else await sandbox.start({ signal });
}
