/** `belljar inspect`: everything that is known of sandboxes or containers, as JSON. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { parseTemplate } from "../format-template.ts";
import { containerJson, sandboxJson } from "../sandbox-text.ts";
import { forEachTarget } from "../target.ts";

interface InspectOptions extends CommonOptions {
  readonly format?: string;
}

export function addInspectCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("inspect")
    .summary("show all facts of sandboxes or containers as JSON")
    .argument("<sandbox[/container]...>", "by id, the beginning of an id, or name")
    .option(
      "-f, --format <template>",
      "json, or such as '{{.state}}', '{{json .ports}}', '{{range .containers}}{{.id}} {{end}}'",
    );
  withCommonOptions(command).action(async (names: string[], options: InspectOptions) => {
    const context = createContext(options, holder);
    const isJson = options.format === "json";
    const format = options.format === undefined || isJson ? undefined : parseTemplate(options.format);
    const indent = options.json === true || isJson ? undefined : 2;
    await using runtime = await context.connect();
    await forEachTarget(runtime, context.output, names, async ({ sandbox, container, isContainer }) => {
      const facts = isContainer ? containerJson(await container.info()) : sandboxJson(await sandbox.info());
      if (format !== undefined) context.output.line(format(facts));
      else context.output.line(JSON.stringify(facts, undefined, indent));
    });
  });
}
