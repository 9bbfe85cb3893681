/** `belljar pause` and `belljar resume`: of a sandbox, its VM's CPUs; of a container, its processes. */
import type { Command } from "commander";
import type { ContextHolder } from "../context.ts";
import { addTargetAction } from "../target-command.ts";

export function addPauseCommand(program: Command, holder: ContextHolder): void {
  addTargetAction({
    command: program.command("pause").summary("stop the CPUs of sandboxes, or the processes of containers"),
    holder,
    work: ({ sandbox, container, isContainer }) => (isContainer ? container : sandbox).pause(),
  });
}

export function addResumeCommand(program: Command, holder: ContextHolder): void {
  addTargetAction({
    command: program.command("resume").alias("unpause").summary("let paused sandboxes or containers go on"),
    holder,
    work: ({ sandbox, container, isContainer }) => (isContainer ? container : sandbox).resume(),
  });
}
