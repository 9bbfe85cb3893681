/** `belljar metrics`: what the daemon measures, for people and for collectors that read files. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";

export function addMetricsCommand(program: Command, holder: ContextHolder): void {
  withCommonOptions(
    program
      .command("metrics")
      .summary("print what the daemon measures, in Prometheus' text format")
      .description("The same is read with `GET /metrics` on its socket. Starts no daemon."),
  ).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const daemon = await context.daemon();
    if (daemon === undefined) {
      const { root } = await context.paths();
      throw new BelljarError("DAEMON_UNAVAILABLE", `no daemon runs for ${root}`, {
        remedy: "Nothing has been measured; any command that needs a daemon starts one.",
      });
    }
    try {
      const text = await daemon.metrics();
      if (context.output.json) for (const sample of parseSamples(text)) context.output.object(sample);
      else process.stdout.write(text);
    } finally {
      await daemon.close();
    }
  });
}

/** One object for each line that has a value. */
function parseSamples(text: string): unknown[] {
  return text.split("\n").flatMap((line) => {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match === null) return [];
    const [, name, labels = "", value] = match;
    const pairs = [...labels.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, key = "", text]) => [key, text]);
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }];
  });
}
