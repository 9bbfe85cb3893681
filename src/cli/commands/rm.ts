/** `belljar rm`: a stopped sandbox or container, with its disks. */
import type { Command } from "commander";
import type { CommonOptions, ContextHolder } from "../context.ts";
import { addTargetAction } from "../target-command.ts";

interface RmOptions extends CommonOptions {
  readonly force?: boolean;
}

export function addRmCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("rm")
    .summary("delete sandboxes or containers")
    .option("-f, --force", "stop them first; one that does not exist is no error");
  addTargetAction<RmOptions>({
    command,
    holder,
    work: ({ sandbox, container, isContainer }, { force = false }, signal) =>
      (isContainer ? container : sandbox).delete({ force, signal }),
    mayBeMissing: ({ force = false }) => force,
  });
}
