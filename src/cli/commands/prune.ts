/** `belljar prune`: removes what processes that died have left behind. Every `run` does the same before it starts. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";

export function addPruneCommand(program: Command, holder: ContextHolder): void {
  withCommonOptions(
    program.command("prune").summary("remove sandboxes whose owner has died, and files that belong to nobody"),
  ).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.openRuntime();
    const removed = await runtime.prune();
    for (const each of removed) {
      if (options.json === true) context.output.object(each);
      else context.output.line(`${each.kind} ${each.name}: ${each.why}`);
    }
  });
}
