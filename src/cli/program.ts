/** The whole command tree. One file per verb stands in commands/. */
import { Command } from "commander";
import { VERSION } from "../base/index.ts";
import { addDoctorCommand } from "./commands/doctor.ts";
import { addGuestCommand } from "./commands/guest.ts";
import { addImageCommand } from "./commands/image.ts";
import { addPruneCommand } from "./commands/prune.ts";
import { addRunCommand } from "./commands/run.ts";
import { addVersionCommand } from "./commands/version.ts";
import type { ContextHolder } from "./context.ts";

export function buildProgram(holder: ContextHolder, setStatus: (status: number) => void): Command {
  const program = new Command("belljar")
    .description("Containers in small virtual machines that never lose their state.")
    .version(VERSION, "-v, --version")
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "belljar: ")) })
    .showHelpAfterError("See `belljar --help`.");
  addRunCommand(program, holder, setStatus);
  addImageCommand(program, holder);
  addGuestCommand(program, holder);
  addDoctorCommand(program, holder, setStatus);
  addPruneCommand(program, holder);
  addVersionCommand(program, holder);
  return program;
}
