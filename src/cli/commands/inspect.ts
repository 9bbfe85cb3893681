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
      "such as '{{.state}}', '{{json .ports}}', '{{range .containers}}{{.id}} {{end}}'",
    );
  withCommonOptions(command).action(async (names: string[], options: InspectOptions) => {
    const context = createContext(options, holder);
    const format = options.format === undefined ? undefined : parseTemplate(options.format);
    await using runtime = await context.connect();
    await forEachTarget(runtime, names, async ({ sandbox, container, isContainer }) => {
      const facts = isContainer ? containerJson(await container.info()) : sandboxJson(await sandbox.info());
      if (format !== undefined) context.output.line(format(facts));
      else context.output.line(JSON.stringify(facts, undefined, options.json === true ? undefined : 2));
    });
  });
}
