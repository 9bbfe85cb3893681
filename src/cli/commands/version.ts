/** `belljar version`: this program, and what it stands on. */
import type { Command } from "commander";
import { VERSION } from "../../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";

export function addVersionCommand(program: Command, holder: ContextHolder): void {
  withCommonOptions(
    program.command("version").summary("print the versions of Belljar and of what it stands on"),
  ).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const { PROTOCOL_VERSION } = await import("../../protocol/index.ts");
    const facts = { belljar: VERSION, protocol: PROTOCOL_VERSION, node: process.version };
    if (options.json === true) context.output.object(facts);
    else for (const [name, value] of Object.entries(facts)) context.output.line(`${name} ${value}`);
  });
}
