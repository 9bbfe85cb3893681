/** `belljar kill`: a signal to a container's first process. */
import type { Command } from "commander";
import type { CommonOptions, ContextHolder } from "../context.ts";
import { parseSignal } from "../quantities.ts";
import { addTargetAction } from "../target-command.ts";

interface KillCommandOptions extends CommonOptions {
  readonly signal: string;
}

export function addKillCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("kill")
    .summary("send a signal to containers")
    .option("-s, --signal <signal>", "by name or number", "KILL");
  addTargetAction<KillCommandOptions>({
    command,
    holder,
    work: async ({ container }, options, signal) => {
      await container.kill({ number: parseSignal(options.signal, "--signal"), signal });
    },
  });
}
