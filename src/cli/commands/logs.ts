/** `belljar logs`: what a container's first process has written, each stream on its own. */
import { isUtf8 } from "node:buffer";
import type { Command } from "commander";
import type { LogRecord } from "../../sdk/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { parseCount, parseTime } from "../quantities.ts";
import { SignalRelay, untilInterrupted } from "../signals.ts";
import { writeFully } from "../standard-output.ts";
import { findTarget } from "../target.ts";

interface LogsOptions extends CommonOptions {
  readonly follow?: boolean;
  readonly since?: string;
  readonly tail?: string;
}

export function addLogsCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("logs")
    .summary("print what a container has written")
    .argument("<sandbox[/container]>", "by id, the beginning of an id, or name")
    .option("-f, --follow", "go on with what it still writes")
    .option("--since <time>", "RFC 3339, or how long ago: 10m")
    .option("-n, --tail <lines>", "lines from the end, or all");
  withCommonOptions(command).action(async (name: string, options: LogsOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    const sinceMs = options.since === undefined ? undefined : parseTime(options.since, "--since", Date.now());
    const tailLines =
      options.tail === undefined || options.tail === "all"
        ? undefined
        : parseCount(options.tail, "--tail", { min: 0, max: Number.MAX_SAFE_INTEGER });
    await using runtime = await context.connect(relay.signal);
    const { container } = await findTarget(runtime, name);
    const records = container.logs({ follow: options.follow === true, sinceMs, tailLines, signal: relay.signal });
    for await (const record of untilInterrupted(records, relay.signal, setStatus)) {
      const bytes = context.output.json ? Buffer.from(`${JSON.stringify(toJson(record))}\n`) : record.data;
      const isError = record.stream === 2 && !context.output.json;
      if (!(await writeFully(isError ? process.stderr : process.stdout, bytes))) return;
    }
  });
}

/** What is no text, or is cut within a character, is there in full as `base64`. */
function toJson({ stream, timeMs, offset, data, lostBytes }: LogRecord): unknown {
  return {
    stream: stream === 1 ? "stdout" : "stderr",
    time: new Date(timeMs).toISOString(),
    offset: Number(offset),
    text: Buffer.from(data).toString("utf8"),
    ...(isUtf8(data) ? {} : { base64: Buffer.from(data).toString("base64") }),
    lostBytes: Number(lostBytes),
  };
}
