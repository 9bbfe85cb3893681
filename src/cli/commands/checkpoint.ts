/** `belljar checkpoint`: whole sandboxes, frozen at one instant, from which `belljar restore` makes new ones. */
import type { Command } from "commander";
import { BelljarError, checkName } from "../../base/index.ts";
import type { Runtime } from "../../sdk/index.ts";
import { checkpointBytes, checkpointJson, costText } from "../checkpoint-text.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { forEachName } from "../for-each.ts";
import { formatBytes } from "../output.ts";
import { formatAge } from "../sandbox-text.ts";
import { SignalRelay } from "../signals.ts";

interface CreateOptions extends CommonOptions {
  readonly stop?: boolean;
  readonly compress?: boolean;
}

interface ExportOptions extends CommonOptions {
  readonly compress?: boolean;
}

interface ListOptions extends CommonOptions {
  readonly quiet?: boolean;
}

interface RemoveOptions extends CommonOptions {
  readonly force?: boolean;
}

const NAMES = "by id, the beginning of an id, or name";

export function addCheckpointCommand(program: Command, holder: ContextHolder): void {
  const checkpoint = program
    .command("checkpoint")
    .summary("freeze running sandboxes, list, verify and remove checkpoints");
  addCreate(checkpoint, holder);
  addList(checkpoint, holder);
  addInspect(checkpoint, holder);
  addVerify(checkpoint, holder);
  addRemove(checkpoint, holder);
  addExport(checkpoint, holder);
  addImport(checkpoint, holder);
}

function addExport(checkpoint: Command, holder: ContextHolder): void {
  withCommonOptions(
    checkpoint
      .command("export")
      .summary("write a checkpoint into one file, with the memory and the layers that it lies over")
      .argument("<checkpoint>", NAMES)
      .argument("<file>", "tar; replaced when it is there")
      .option("--compress", "pack it with zstd"),
  ).action(async (name: string, file: string, options: ExportOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    context.output.progress(`writing ${file}`);
    const { id } = await runtime.archives.export(name, file, { compress: options.compress, signal: relay.signal });
    printDone(context, file, { exported: file, id });
  });
}

function addImport(checkpoint: Command, holder: ContextHolder): void {
  withCommonOptions(
    checkpoint
      .command("import")
      .summary("take a checkpoint in from a file, and print its id; every byte of it is checked first")
      .argument("<file>", "that `belljar checkpoint export` has written"),
  ).action(async (file: string, options: CommonOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    context.output.progress(`reading ${file}`);
    const { id, name } = await runtime.archives.import(file, { signal: relay.signal });
    printDone(context, id, { imported: file, id, name });
  });
}

function addCreate(checkpoint: Command, holder: ContextHolder): void {
  withCommonOptions(
    checkpoint
      .command("create")
      .summary("freeze a sandbox as it is, and print the checkpoint's id; the sandbox goes on")
      .argument("<sandbox>", NAMES)
      .argument("[name]", "of the checkpoint (its id)")
      .option("--stop", "end the sandbox once the checkpoint is there")
      .option("--compress", "pack its memory with zstd: less room, slower to make and to restore"),
  ).action(async (sandboxName: string, name: string | undefined, options: CreateOptions) => {
    checkName(sandboxName, "sandbox");
    if (name !== undefined) checkName(name, "checkpoint");
    const { output, connect } = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await connect(relay.signal);
    const sandbox = await runtime.sandboxes.get(sandboxName);
    output.progress(`making a checkpoint of ${sandbox.name}`);
    const beganMs = performance.now();
    const info = await sandbox.checkpoint({
      name,
      stop: options.stop,
      compress: options.compress,
      signal: relay.signal,
    });
    output.note(costText(info, performance.now() - beganMs));
    if (output.json) output.object(checkpointJson(info));
    else output.line(info.id);
  });
}

function addList(checkpoint: Command, holder: ContextHolder): void {
  withCommonOptions(
    checkpoint.command("ls").summary("list checkpoints").option("-q, --quiet", "ids only, one a line"),
  ).action(async (options: ListOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    // Templates have a list of their own.
    const infos = (await runtime.checkpoints.list()).filter(({ isTemplate }) => isTemplate !== true);
    if (options.quiet === true) {
      for (const { id } of infos) context.output.line(id);
      return;
    }
    context.output.table(
      ["ID", "NAME", "SANDBOX", "IMAGE", "CREATED", "STATE", "CONTAINERS", "SIZE"],
      infos.map((info) => [
        info.id,
        info.name,
        info.source.name,
        info.image,
        formatAge(info.createdAtMs, Date.now()),
        info.problem === undefined ? info.state : `unreadable: ${info.problem}`,
        String(info.containers.length),
        formatBytes(checkpointBytes(info)),
      ]),
      infos.map(checkpointJson),
    );
  });
}

function addInspect(checkpoint: Command, holder: ContextHolder): void {
  withCommonOptions(
    checkpoint.command("inspect").summary("show all facts of checkpoints as JSON").argument("<checkpoint...>", NAMES),
  ).action(async (names: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    await forEachCheckpoint(names, context, async (name) => {
      const facts = checkpointJson(await runtime.checkpoints.get(name));
      context.output.line(JSON.stringify(facts, undefined, options.json === true ? undefined : 2));
    });
  });
}

function addVerify(checkpoint: Command, holder: ContextHolder): void {
  withCommonOptions(
    checkpoint
      .command("verify")
      .summary("read every byte of checkpoints, and compare it with what was written")
      .argument("<checkpoint...>", NAMES),
  ).action(async (names: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    await forEachCheckpoint(names, context, async (name) => {
      context.output.progress(`reading checkpoint ${name}`);
      const { id } = await runtime.checkpoints.verify(name, { signal: relay.signal });
      printDone(context, name, { verified: name, id });
    });
  });
}

function addRemove(checkpoint: Command, holder: ContextHolder): void {
  withCommonOptions(
    checkpoint
      .command("rm")
      .summary("remove checkpoints; sandboxes that were restored from them go on")
      .argument("<checkpoint...>", NAMES)
      .option("-f, --force", "a checkpoint that does not exist is no error"),
  ).action(async (names: string[], options: RemoveOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    await forEachCheckpoint(names, context, async (name) => {
      const id = await remove(runtime, name, options.force === true);
      if (id !== undefined) printDone(context, name, { removed: name, id });
    });
  });
}

async function remove(runtime: Runtime, name: string, isForced: boolean): Promise<string | undefined> {
  try {
    return (await runtime.checkpoints.remove(name)).id;
  } catch (error) {
    if (!isForced || BelljarError.from(error).reason !== "CHECKPOINT_NOT_FOUND") throw error;
    return undefined;
  }
}

function printDone({ output }: Context, name: string, facts: object): void {
  output.endProgress();
  if (output.json) output.object(facts);
  else output.line(name);
}

/** A name that is unsafe is refused before any of the others is touched. */
async function forEachCheckpoint(
  names: readonly string[],
  { output }: Context,
  work: (name: string) => Promise<void>,
): Promise<void> {
  for (const name of names) checkName(name, "checkpoint");
  await forEachName(names, output, work);
}
