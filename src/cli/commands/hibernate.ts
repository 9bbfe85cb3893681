/** `belljar hibernate` and `belljar wake`: lets the VMs of sandboxes go, and brings them back as they were. */
import type { Command } from "commander";
import type { ContextHolder } from "../context.ts";
import { addTargetAction } from "../target-command.ts";

export function addHibernateCommand(program: Command, holder: ContextHolder): void {
  addTargetAction({
    command: program
      .command("hibernate")
      .summary("let the VMs of sandboxes go until somebody wants something of them")
      .description(
        "Everything is kept on disk as it is. The next exec, copy, attach or connection to a published port wakes a sandbox in place; " +
          "`belljar wake` does so too.",
      ),
    holder,
    work: ({ sandbox }) => sandbox.hibernate(),
    onlySandboxes: true,
  });
}

export function addWakeCommand(program: Command, holder: ContextHolder): void {
  addTargetAction({
    command: program.command("wake").summary("let hibernated sandboxes go on"),
    holder,
    work: ({ sandbox }) => sandbox.wake(),
    onlySandboxes: true,
  });
}
