/** `belljar events`: what happens to the sandboxes of a root, numbered, from now on or from an earlier number or time on. */
import type { Command } from "commander";
import type { RuntimeEvent } from "../../sdk/index.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { shownText } from "../output.ts";
import { parseCount, parseTime } from "../quantities.ts";
import { SignalRelay, untilInterrupted } from "../signals.ts";
import { whilePrinting } from "../standard-output.ts";

interface EventsCommandOptions extends CommonOptions {
  readonly after?: string;
  readonly since?: string;
  /** False with `--no-follow`. */
  readonly follow: boolean;
}

export function addEventsCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("events")
    .summary("print what happens to sandboxes")
    .description(
      "Events have numbers without gaps, which go on from one daemon to the next: a script that remembers the last one misses " +
        "nothing. The latest 4096 are kept.",
    )
    .option("--after <number>", "begin behind this event; 0 for all that are kept")
    .option("--since <time>", "begin with this time: RFC 3339, or how long ago: 10m")
    .option("--no-follow", "end with the last event that there is");
  withCommonOptions(command).action(async (options: EventsCommandOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    const sinceMs = options.since === undefined ? undefined : parseTime(options.since, "--since", Date.now());
    const range = { min: 0, max: Number.MAX_SAFE_INTEGER };
    const given = options.after === undefined ? undefined : parseCount(options.after, "--after", range);
    const after = given ?? (sinceMs === undefined && options.follow ? undefined : 0);
    await using runtime = await context.connect(relay.signal);
    const signal = whilePrinting(process.stdout, relay.signal);
    const events = runtime.sandboxes.events({ after, follow: options.follow, signal });
    let last = given;
    for await (const event of untilInterrupted(events, signal, setStatus)) {
      if (last !== undefined && event.number > last + 1) {
        process.stderr.write(`belljar: events ${last + 1} to ${event.number - 1} are not kept any more\n`);
      }
      last = event.number;
      if (sinceMs === undefined || event.atMs >= sinceMs) print(context, event);
    }
  });
}

function print({ output }: Context, { atMs, ...event }: RuntimeEvent): void {
  const at = new Date(atMs).toISOString();
  if (output.json) output.object({ ...event, at });
  else {
    const words = [at, event.number, event.sandboxId, event.sandboxName, describe({ ...event, atMs })];
    output.line(shownText(words.join(" ")));
  }
}

function describe(event: RuntimeEvent): string {
  switch (event.kind) {
    case "created":
      return `created from ${event.image}`;
    case "renamed":
      return `renamed from ${event.oldName}`;
    case "state":
      return event.state;
    case "container":
      return `container ${event.containerId} ${event.state}`;
    case "failed":
      return `failing: ${event.part}: ${event.message}`;
    case "denied":
      return `denied ${event.packets} packets so far`;
    case "deleted":
      return "deleted";
  }
}
