/** `belljar daemon`: the process that owns a root and serves it, in the foreground, looked at, or ended. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";

/** As `systemctl status` has it for what does not run. */
const EXIT_NOT_RUNNING = 3;

export function addDaemonCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const daemon = program.command("daemon").summary("run, look at and stop the process that owns a root");

  withCommonOptions(
    daemon
      .command("run")
      .summary("own the root and serve it until SIGTERM or SIGINT")
      .description("Sandboxes run on when it ends, however it ends; the next one picks them up."),
  ).action(async (options: CommonOptions, command: Command) => {
    // Its log is all that it has to say.
    const isDefault = command.getOptionValueSource("logLevel") === "default";
    const context = createContext(isDefault ? { ...options, logLevel: "info" } : options, holder);
    const { openHost, startDaemon, stopOnSignals } = await import("../../sdk/index.ts");
    const paths = await context.paths();
    const { log } = context;
    const host = await openHost({ paths, log });
    const running = await startDaemon({
      root: paths.root,
      runDir: paths.run,
      log,
      openRuntime: () => host.openRuntime(),
    });
    using _signals = stopOnSignals(running);
    await running.stopped;
  });

  withCommonOptions(
    daemon
      .command("status")
      .summary("say whether a daemon runs for the root")
      .description("Exits with 3 when none does."),
  ).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const { root } = await context.paths();
    const connected = await context.daemon();
    if (connected === undefined) {
      setStatus(EXIT_NOT_RUNNING);
      if (context.output.json) context.output.object({ running: false, root });
      else context.output.line(`no daemon runs for ${root}`);
      return;
    }
    try {
      const { pid, version, onDemand, startedAtMs, connections } = await connected.status();
      const startedAt = new Date(startedAtMs).toISOString();
      if (context.output.json) {
        context.output.object({ running: true, pid, version, root, onDemand, startedAt, connections });
      } else {
        const kind = onDemand ? "started on demand; it ends when nobody needs it" : "started by `daemon run`";
        context.output.line(`pid ${pid}, version ${version}, since ${startedAt}, for ${root} (${kind})`);
      }
    } finally {
      await connected.close();
    }
  });

  withCommonOptions(
    daemon
      .command("stop")
      .summary("end the root's daemon; sandboxes run on")
      .description("Answers when its process has ended. Success, too, when there is none."),
  ).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const connected = await context.daemon();
    const pid = await connected?.stop();
    if (context.output.json) context.output.object(pid === undefined ? { stopped: false } : { stopped: true, pid });
    else if (pid !== undefined) context.output.line(`stopped the daemon (pid ${pid})`);
  });
}
