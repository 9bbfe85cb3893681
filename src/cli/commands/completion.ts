/** `belljar completion`: a script for the shell; what it asks is a hidden command. */
import { Argument, type Command } from "commander";
import { findCandidates, type Names } from "../completion/candidates.ts";
import { COMPLETE_COMMAND, completionScript, type Shell, shells } from "../completion/scripts.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";

export function addCompletionCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("completion")
    .summary("print what makes a shell complete commands, options and names")
    .description("For example: source <(belljar completion bash)")
    .addArgument(new Argument("<shell>").choices([...shells]));
  withCommonOptions(command).action((shell: Shell, options: CommonOptions) => {
    const { output } = createContext(options, holder);
    const script = completionScript(shell);
    if (output.json) output.object({ shell, script });
    else process.stdout.write(script);
  });

  program
    .command(COMPLETE_COMMAND, { hidden: true })
    .argument("[word...]")
    .action(async (words: string[]) => {
      const context = createContext({ logLevel: "error", ...rootIn(words) }, holder);
      for (const candidate of await findCandidates(program, words, namesOf(context))) context.output.line(candidate);
    });
}

/** The line that is being typed may name the root whose names are wanted. */
function rootIn(words: readonly string[]): Pick<CommonOptions, "root"> {
  const at = words.findLastIndex((word, index) => word === "--root" && index < words.length - 2);
  const joined = words.slice(0, -1).findLast((word) => word.startsWith("--root="));
  const root = at === -1 ? joined?.slice("--root=".length) : words[at + 1];
  return root === undefined ? {} : { root };
}

/** Whoever presses Tab wants no daemon started, and no error. */
function namesOf(context: Context): Names {
  const ask = async (work: () => Promise<readonly string[]>): Promise<readonly string[]> => {
    try {
      return await work();
    } catch {
      return [];
    }
  };
  const askDaemon = (
    work: (
      daemon: NonNullable<Awaited<ReturnType<Context["daemon"]>>>,
    ) => Promise<readonly { readonly name: string }[]>,
  ): Promise<readonly string[]> =>
    ask(async () => {
      const daemon = await context.daemon();
      if (daemon === undefined) return [];
      try {
        return (await work(daemon)).map(({ name }) => name);
      } finally {
        await daemon.close();
      }
    });
  return {
    sandboxes: () => askDaemon((daemon) => daemon.sandboxes.list()),
    volumes: () => askDaemon((daemon) => daemon.volumes.list()),
    checkpoints: () =>
      askDaemon(async (daemon) => (await daemon.checkpoints.list()).filter(({ isTemplate }) => isTemplate !== true)),
    templates: () =>
      askDaemon(async (daemon) => (await daemon.checkpoints.list()).filter(({ isTemplate }) => isTemplate === true)),
    images: () => ask(async () => (await (await context.host()).images.list()).map(({ name }) => name)),
  };
}
