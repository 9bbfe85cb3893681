/** `belljar rewind`: a sandbox goes back, in place, to where a checkpoint of its own was taken. */
import type { Command } from "commander";
import { checkName } from "../../base/index.ts";
import type { RewindOptions, Runtime } from "../../sdk/index.ts";
import { checkpointJson } from "../checkpoint-text.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { formatDuration } from "../output.ts";
import { parseDuration } from "../quantities.ts";
import { formatAge } from "../sandbox-text.ts";
import { SignalRelay } from "../signals.ts";

interface RewindCommandOptions extends CommonOptions {
  readonly to?: string;
  readonly keepExec?: boolean;
}

export function addRewindCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("rewind")
    .summary("let a sandbox go back, in place, to a checkpoint of its own")
    .description(
      "What it did since is gone, its output too; its id, name and ports stay. It runs then, whatever it was before. Prints the id of " +
        "the checkpoint.",
    )
    .argument("<sandbox>", "by id, the beginning of an id, or name")
    .option(
      "--to <checkpoint|age>",
      "which one: by id, the beginning of an id, or name; or the latest that is as old (10m); the latest",
    )
    .option("--keep-exec", "processes that `exec` had started go on; otherwise they are ended");
  withCommonOptions(command).action(async (sandboxName: string, options: RewindCommandOptions) => {
    checkName(sandboxName, "sandbox");
    const { output, connect } = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await connect(relay.signal);
    const sandbox = await runtime.sandboxes.get(sandboxName);
    const target = options.to === undefined ? {} : await findTarget(runtime, options.to);
    output.progress(`rewinding ${sandbox.name}`);
    const beganMs = performance.now();
    const to = await sandbox.rewind({ ...target, keepExec: options.keepExec, signal: relay.signal });
    const tookText = formatDuration(performance.now() - beganMs);
    output.note(`${sandbox.name} is back at ${to.name} (${formatAge(to.createdAtMs, Date.now())}) in ${tookText}`);
    if (output.json) output.object(checkpointJson(to));
    else output.line(to.id);
  });
}

const AGE = /^\d+(?:\.\d+)?(?:ms|s|m|h|d)$/;

/** A checkpoint may be called as an age is; then it is meant. */
async function findTarget(runtime: Runtime, text: string): Promise<RewindOptions> {
  if (!AGE.test(text)) return { checkpoint: checkName(text, "checkpoint") };
  const isName = (await runtime.checkpoints.list()).some(({ name }) => name === text);
  return isName ? { checkpoint: text } : { beforeMs: Date.now() - parseDuration(text, "--to") };
}
