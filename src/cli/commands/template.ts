/** `belljar template`: the frozen guests that sandboxes start from. They are made when they are first needed. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { formatBytes } from "../output.ts";

const SHOWN_DIGITS = 12;

export function addTemplateCommand(program: Command, holder: ContextHolder): void {
  const template = program.command("template").summary("list and remove the frozen guests that sandboxes start from");

  withCommonOptions(template.command("ls").summary("list templates")).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const infos = await host.templates.list();
    context.output.table(
      ["DIGEST", "MEMORY", "CPUS", "ACCELERATION", "DOMAIN", "ON DISK", "CREATED"],
      infos.map((info) => [
        info.digest.slice(0, SHOWN_DIGITS),
        `${info.memoryMib} MiB`,
        String(info.cpus),
        info.acceleration,
        info.key.domain,
        formatBytes(info.diskBytes),
        new Date(info.createdAtMs).toISOString(),
      ]),
      infos.map(({ createdAtMs, ...info }) => ({ ...info, createdAt: new Date(createdAtMs).toISOString() })),
    );
  });

  withCommonOptions(
    template
      .command("rm")
      .summary("remove templates; sandboxes that run are not touched, the next one makes a new template")
      .argument("<digest...>", "or the beginning of it"),
  ).action(async (digests: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    for (const digest of digests) {
      const removed = await host.templates.remove(digest);
      if (options.json === true) context.output.object({ digest: removed });
      else context.output.line(removed);
    }
  });
}
