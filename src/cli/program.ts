/** The whole command tree. One file per verb stands in commands/. */
import { Command } from "commander";
import { VERSION } from "../base/index.ts";
import { addAttachCommand } from "./commands/attach.ts";
import { addCheckpointCommand } from "./commands/checkpoint.ts";
import { addCompletionCommand } from "./commands/completion.ts";
import { addCpCommand } from "./commands/cp.ts";
import { addCreateCommand } from "./commands/create.ts";
import { addDaemonCommand } from "./commands/daemon.ts";
import { addDeviceCommand } from "./commands/device.ts";
import { addDoctorCommand } from "./commands/doctor.ts";
import { addEventsCommand } from "./commands/events.ts";
import { addExecCommand } from "./commands/exec.ts";
import { addForkCommand } from "./commands/fork.ts";
import { addGuestCommand } from "./commands/guest.ts";
import { addHibernateCommand, addWakeCommand } from "./commands/hibernate.ts";
import { addImageCommand } from "./commands/image.ts";
import { addInspectCommand } from "./commands/inspect.ts";
import { addKillCommand } from "./commands/kill.ts";
import { addLogsCommand } from "./commands/logs.ts";
import { addMetricsCommand } from "./commands/metrics.ts";
import { addNetworkCommand } from "./commands/network.ts";
import { addPauseCommand, addResumeCommand } from "./commands/pause.ts";
import { addPruneCommand } from "./commands/prune.ts";
import { addPsCommand } from "./commands/ps.ts";
import { addRenameCommand } from "./commands/rename.ts";
import { addRestoreCommand } from "./commands/restore.ts";
import { addRewindCommand } from "./commands/rewind.ts";
import { addRmCommand } from "./commands/rm.ts";
import { addRunCommand } from "./commands/run.ts";
import { addStartCommand } from "./commands/start.ts";
import { addStatsCommand } from "./commands/stats.ts";
import { addStopCommand } from "./commands/stop.ts";
import { addTemplateCommand } from "./commands/template.ts";
import { addTopCommand } from "./commands/top.ts";
import { addUpdateCommand } from "./commands/update.ts";
import { addVersionCommand } from "./commands/version.ts";
import { addVolumeCommand } from "./commands/volume.ts";
import { addWaitCommand } from "./commands/wait.ts";
import { type ContextHolder, handDownCommonOptions } from "./context.ts";

export function buildProgram(holder: ContextHolder, setStatus: (status: number) => void): Command {
  const program = new Command("belljar")
    .description("Containers in small virtual machines that never lose their state.")
    .version(VERSION, "-v, --version")
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "belljar: ")) })
    .showHelpAfterError("See `belljar --help`.");
  addRunCommand(program, holder, setStatus);
  addCreateCommand(program, holder);
  addStartCommand(program, holder, setStatus);
  addStopCommand(program, holder);
  addKillCommand(program, holder);
  addRmCommand(program, holder);
  addWaitCommand(program, holder);
  addRenameCommand(program, holder);
  addPsCommand(program, holder);
  addInspectCommand(program, holder);
  addExecCommand(program, holder, setStatus);
  addCpCommand(program, holder);
  addAttachCommand(program, holder, setStatus);
  addLogsCommand(program, holder, setStatus);
  addPauseCommand(program, holder);
  addResumeCommand(program, holder);
  addHibernateCommand(program, holder);
  addWakeCommand(program, holder);
  addUpdateCommand(program, holder);
  addStatsCommand(program, holder, setStatus);
  addCheckpointCommand(program, holder);
  addRestoreCommand(program, holder, setStatus);
  addRewindCommand(program, holder);
  addForkCommand(program, holder);
  addTopCommand(program, holder, setStatus);
  addEventsCommand(program, holder, setStatus);
  addImageCommand(program, holder);
  addVolumeCommand(program, holder);
  addDeviceCommand(program, holder);
  addNetworkCommand(program, holder);
  addGuestCommand(program, holder);
  addTemplateCommand(program, holder);
  addDaemonCommand(program, holder, setStatus);
  addMetricsCommand(program, holder);
  addDoctorCommand(program, holder, setStatus);
  addPruneCommand(program, holder);
  addVersionCommand(program, holder);
  addCompletionCommand(program, holder);
  handDownCommonOptions(program);
  return program;
}
