/** `belljar fork`: new sandboxes that go on from where a running one is, which goes on itself. */
import type { Command } from "commander";
import { checkName, checkpointLimits } from "../../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { formatDuration } from "../output.ts";
import { parseCount } from "../quantities.ts";
import { SignalRelay } from "../signals.ts";

interface ForkCommandOptions extends CommonOptions {
  readonly count?: string;
  readonly name?: string;
  readonly keepExec?: boolean;
}

export function addForkCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("fork")
    .summary("make new sandboxes that go on from where a running one is, and print their ids")
    .description(
      "The source stands still for a moment and goes on. Each fork has a name, host name, machine id and random numbers of " +
        "its own; what one writes is never seen by another. All of them are made, or none.",
    )
    .argument("<sandbox>", "by id, the beginning of an id, or name")
    .option("-n, --count <n>", "how many (1)")
    .option("--name <pattern>", "of the new sandboxes; {n} in it becomes 1, 2, ... (their ids)")
    .option("--keep-exec", "processes that `exec` had started go on in the forks; otherwise they are ended there");
  withCommonOptions(command).action(async (sandboxName: string, options: ForkCommandOptions) => {
    checkName(sandboxName, "sandbox");
    const { name, keepExec } = options;
    const count = parseCount(options.count ?? "1", "--count", { min: 1, max: checkpointLimits.forksMax });
    const { output, connect } = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await connect(relay.signal);
    const source = await runtime.sandboxes.get(sandboxName);
    output.progress(`forking ${source.name}`);
    const beganMs = performance.now();
    const forks = await source.fork({ count, name, keepExec, signal: relay.signal });
    output.note(
      `${source.name} forked ${count === 1 ? "once" : `${count} times`} in ${formatDuration(performance.now() - beganMs)}`,
    );
    for (const { id, name: forkName } of forks) {
      if (output.json) output.object({ id, name: forkName });
      else output.line(id);
    }
  });
}
