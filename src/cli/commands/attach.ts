/** `belljar attach`: the streams of a container's first process on ours, from now on. */
import type { Command } from "commander";
import type { ContainerHandle } from "../../sdk/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { runInForeground } from "../foreground.ts";
import { SignalRelay } from "../signals.ts";
import { findTarget } from "../target.ts";
import { checkTerminal } from "../terminal.ts";

interface AttachCommandOptions extends CommonOptions {
  /** False with `--no-stdin`. */
  readonly stdin: boolean;
  readonly history?: boolean;
}

export function addAttachCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("attach")
    .summary("connect to a container's first process")
    .description("Ends with its exit status. Ctrl-P Ctrl-Q on a terminal leaves it alone again.")
    .argument("<sandbox[/container]>", "by id, the beginning of an id, or name")
    .option("--no-stdin", "do not connect standard input")
    .option("--history", "begin with what it has written so far");
  withCommonOptions(command).action(async (name: string, options: AttachCommandOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    const { container } = await findTarget(runtime, name);
    const { tty, stdin } = await container.info();
    const interactive = options.stdin && stdin;
    checkTerminal({ interactive, tty });
    const offsets = options.history === true ? undefined : await endOfOutput(container);
    setStatus((await runInForeground(container, { relay, interactive, tty, offsets })) ?? 0);
  });
}

/** Where the output of both streams ends just now, by what the host has of it. */
async function endOfOutput(
  container: ContainerHandle,
): Promise<{ readonly stdoutOffset: bigint; readonly stderrOffset: bigint }> {
  const ends = { 1: 0n, 2: 0n };
  for await (const { stream, offset, data } of container.logs()) ends[stream] = offset + BigInt(data.length);
  return { stdoutOffset: ends[1], stderrOffset: ends[2] };
}
