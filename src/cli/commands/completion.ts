/** `belljar completion`: a script for the shell; what it asks is a hidden command. */
import { Argument, type Command } from "commander";
import { findCandidates, type Names } from "../completion/candidates.ts";
import { COMPLETE_COMMAND, completionScript, type Shell, shells } from "../completion/scripts.ts";
import { type Context, type ContextHolder, createContext } from "../context.ts";

export function addCompletionCommand(program: Command, holder: ContextHolder): void {
  program
    .command("completion")
    .summary("print what makes a shell complete commands, options and names")
    .description("For example: source <(belljar completion bash)")
    .addArgument(new Argument("<shell>").choices([...shells]))
    .action((shell: Shell) => {
      process.stdout.write(completionScript(shell));
    });

  program
    .command(COMPLETE_COMMAND, { hidden: true })
    .argument("[word...]")
    .action(async (words: string[]) => {
      const context = createContext({ logLevel: "error" }, holder);
      for (const candidate of await findCandidates(program, words, namesOf(context))) context.output.line(candidate);
    });
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
    checkpoints: () => askDaemon((daemon) => daemon.checkpoints.list()),
    images: () => ask(async () => (await (await context.host()).images.list()).map(({ name }) => name)),
  };
}
