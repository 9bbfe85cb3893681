/** `belljar stop`: the stop signal, some time, SIGKILL; of a sandbox, its VM too. */
import type { Command } from "commander";
import type { CommonOptions, ContextHolder } from "../context.ts";
import { parseCount } from "../quantities.ts";
import { addTargetAction } from "../target-command.ts";

interface StopCommandOptions extends CommonOptions {
  readonly time?: string;
  readonly force?: boolean;
}

const SECONDS_MAX = 24 * 60 * 60;

export function addStopCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("stop")
    .summary("stop sandboxes or containers")
    .option("-t, --time <seconds>", "between the stop signal and SIGKILL (10)")
    .option("--force", "go on past errors: what was asked to stop is stopped, whatever happens");
  addTargetAction<StopCommandOptions>({
    command,
    holder,
    work: async ({ sandbox, container, isContainer }, { time, force }, signal) => {
      const timeoutMs =
        time === undefined ? undefined : parseCount(time, "--time", { min: 0, max: SECONDS_MAX }) * 1000;
      await (isContainer ? container : sandbox).stop({ signal, timeoutMs, force });
    },
  });
}
