/** `belljar rename`: another name for a sandbox; its id and host name stay. */
import type { Command } from "commander";
import { checkName } from "../../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";

export function addRenameCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("rename")
    .summary("give a sandbox another name")
    .argument("<sandbox>", "by id, the beginning of an id, or name")
    .argument("<name>", "its new name");
  withCommonOptions(command).action(async (sandboxName: string, name: string, options: CommonOptions) => {
    const context = createContext(options, holder);
    checkName(sandboxName, "sandbox");
    checkName(name, "sandbox");
    await using runtime = await context.connect();
    const sandbox = await runtime.sandboxes.get(sandboxName);
    await sandbox.rename(name);
    if (context.output.json) context.output.object({ id: sandbox.id, name });
    else context.output.line(name);
  });
}
