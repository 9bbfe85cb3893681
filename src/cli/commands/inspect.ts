/** `belljar inspect`: everything that is known of sandboxes or containers, as JSON. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { containerJson, sandboxJson } from "../sandbox-text.ts";
import { forEachTarget } from "../target.ts";

export function addInspectCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("inspect")
    .summary("show all facts of sandboxes or containers as JSON")
    .argument("<sandbox[/container]...>", "by id, the beginning of an id, or name");
  withCommonOptions(command).action(async (names: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    await forEachTarget(runtime, names, async ({ sandbox, container, isContainer }) => {
      const facts = isContainer ? containerJson(await container.info()) : sandboxJson(await sandbox.info());
      context.output.line(JSON.stringify(facts, undefined, options.json === true ? undefined : 2));
    });
  });
}
