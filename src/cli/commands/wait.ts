/** `belljar wait`: until a container's first process has ended; prints its exit status. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { SignalRelay } from "../signals.ts";
import { forEachTarget } from "../target.ts";

export function addWaitCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("wait")
    .summary("wait until containers have ended, and print their exit statuses")
    .argument("<sandbox[/container]...>", "by id, the beginning of an id, or name");
  withCommonOptions(command).action(async (names: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    await forEachTarget(runtime, names, async ({ container }, name) => {
      const { exitCode, signal, oomKilled } = await container.wait({ signal: relay.signal });
      if (context.output.json) context.output.object({ name, exitCode, signal, oomKilled });
      else context.output.line(String(exitCode));
    });
  });
}
