/** `belljar daemon`: the process that owns a root and serves it, in the foreground, looked at, or ended. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { BelljarError, goBeforeGuests } from "../../base/index.ts";
import type { DaemonDeps } from "../../sdk/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";

/** As `systemctl status` has it for what does not run. */
const EXIT_NOT_RUNNING = 3;

interface RunOptions extends CommonOptions {
  readonly tcp?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tokenFile?: string;
  readonly otlpEndpoint?: string;
  readonly pool?: string;
  readonly spares?: string;
}

export function addDaemonCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const daemon = program.command("daemon").summary("run, look at and stop the process that owns a root");

  withCommonOptions(
    daemon
      .command("run")
      .summary("own the root and serve it until SIGTERM or SIGINT")
      .description(
        "Sandboxes run on when it ends, however it ends; the next one picks them up. Its log goes to standard error, with --json as " +
          "an object a line. A socket that systemd hands over is used.",
      )
      .option(
        "--tcp <addr:port>",
        "serve the API over TCP too, with TLS and tokens; whoever has a token owns this root",
      )
      .option("--pool <n>", "VMs that run and wait for the next sandboxes of a kind created before (BELLJAR_POOL)")
      .option(
        "--spares <n>",
        "VMMs and loaded copies that wait for the next restores and forks of a kind made before (BELLJAR_SPARES)",
      )
      .option("--tls-cert <file>", "certificate for TCP, PEM")
      .option("--tls-key <file>", "its key, PEM")
      .option("--otlp-endpoint <url>", "send traces to this collector (OTEL_EXPORTER_OTLP_ENDPOINT)")
      .option("--token-file <file>", "tokens, one a line: NAME TOKEN"),
  ).action(async (options: RunOptions, command: Command) => {
    // Its log is all that it has to say.
    const isDefault = command.getOptionValueSource("logLevel") === "default";
    const context = createContext(isDefault ? { ...options, logLevel: "info" } : options, holder);
    const { openHost, resolvePoolSize, resolveSpareCount, startDaemon, stopOnSignals } = await import(
      "../../sdk/index.ts"
    );
    goBeforeGuests();
    const paths = await context.paths();
    const { log } = context;
    const remote = await remoteConfig(options);
    const inheritedFd = inheritedSocket(context.environment);
    const { environment } = context;
    const poolSize = resolvePoolSize(environment, options.pool);
    const spareCount = resolveSpareCount(environment, options.spares);
    const host = await openHost({ paths, log, poolSize, spareCount });
    const running = await startDaemon({
      root: paths.root,
      runDir: paths.run,
      log,
      openRuntime: () => host.openRuntime(),
      inheritedFd,
      tracesEndpoint: options.otlpEndpoint ?? context.environment["OTEL_EXPORTER_OTLP_ENDPOINT"],
      remote,
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

/** First descriptor that systemd hands over; see sd_listen_fds(3). */
const LISTEN_FDS_START = 3;

function inheritedSocket({ LISTEN_PID, LISTEN_FDS }: NodeJS.ProcessEnv): number | undefined {
  return LISTEN_PID === String(process.pid) && LISTEN_FDS === "1" ? LISTEN_FDS_START : undefined;
}

/** TCP without TLS and tokens is not to be had. */
async function remoteConfig({ tcp, tlsCert, tlsKey, tokenFile }: RunOptions): Promise<DaemonDeps["remote"]> {
  const { readTokens } = await import("../../sdk/index.ts");
  const given = [tcp, tlsCert, tlsKey, tokenFile].filter((each) => each !== undefined).length;
  if (given === 0) return undefined;
  if (tcp === undefined || tlsCert === undefined || tlsKey === undefined || tokenFile === undefined) {
    throw new BelljarError("INVALID_ARGUMENT", "TCP needs TLS and tokens", {
      remedy: "Give all of --tcp, --tls-cert, --tls-key and --token-file, or none.",
    });
  }
  const match = /^(?:\[([0-9a-f:.]+)\]|([\w.-]+)):(\d{1,5})$/i.exec(tcp);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new BelljarError("INVALID_ARGUMENT", `--tcp ${JSON.stringify(tcp.slice(0, 60))} is not ADDRESS:PORT`);
  }
  const [certificate, key] = await Promise.all([tlsCert, tlsKey].map((path) => readFile(path, "utf8")));
  return {
    host: match[1] ?? match[2] ?? "",
    port,
    certificate: certificate ?? "",
    key: key ?? "",
    tokens: await readTokens(tokenFile),
  };
}
