/** `belljar wait`: until a container's first process has ended; prints its exit status. */
import { type Command, Option } from "commander";
import { checkName } from "../../base/index.ts";
import { checkpointJson } from "../checkpoint-text.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { SignalRelay } from "../signals.ts";
import { forEachTarget } from "../target.ts";

interface WaitOptions extends CommonOptions {
  readonly checkpoint?: boolean;
  readonly restore?: boolean;
}

export function addWaitCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("wait")
    .summary("wait until containers have ended, and print their exit statuses")
    .argument("<sandbox[/container]...>", "by id, the beginning of an id, or name")
    .addOption(
      new Option("--checkpoint", "for the next checkpoint of the sandbox, and print its id").conflicts("restore"),
    )
    .option("--restore", "until all of a restored or forked sandbox runs");
  withCommonOptions(command).action(async (names: string[], options: WaitOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    if (options.checkpoint === true || options.restore === true) {
      for (const name of names) checkName(name, "sandbox");
      await Promise.all(
        names.map(async (name) => {
          const sandbox = await runtime.sandboxes.get(name);
          if (options.restore === true) {
            await sandbox.waitForRestore({ signal: relay.signal });
            if (context.output.json) context.output.object({ name, restored: sandbox.id });
            else context.output.line(name);
            return;
          }
          const info = await sandbox.waitForCheckpoint({ signal: relay.signal });
          if (context.output.json) context.output.object(checkpointJson(info));
          else context.output.line(info.id);
        }),
      );
      return;
    }
    await forEachTarget(runtime, context.output, names, async ({ container }, name) => {
      const { exitCode, signal, oomKilled } = await container.wait({ signal: relay.signal });
      if (context.output.json) context.output.object({ name, exitCode, signal, oomKilled });
      else context.output.line(String(exitCode));
    });
  });
}
