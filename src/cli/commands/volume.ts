/** `belljar volume`: named volumes, which outlive the containers that use them. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { VolumeInfo } from "../../sdk/index.ts";
import { collect, parseAnnotations } from "../container-options.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { forEachName } from "../for-each.ts";
import { formatBytes } from "../output.ts";
import { parseBytes } from "../quantities.ts";
import { SignalRelay } from "../signals.ts";

interface CreateOptions extends CommonOptions {
  readonly size?: string;
  readonly label?: readonly string[];
}

interface ListOptions extends CommonOptions {
  readonly quiet?: boolean;
}

interface RemoveOptions extends CommonOptions {
  readonly force?: boolean;
}

interface PruneOptions extends CommonOptions {
  readonly all?: boolean;
  readonly force?: boolean;
}

export function addVolumeCommand(program: Command, holder: ContextHolder): void {
  const volume = program.command("volume").summary("create, list, inspect and remove volumes");
  addCreate(volume, holder);
  addList(volume, holder);
  addInspect(volume, holder);
  addRemove(volume, holder);
  addPrune(volume, holder);
}

function addCreate(volume: Command, holder: ContextHolder): void {
  withCommonOptions(
    volume
      .command("create")
      .summary("make a volume; `run -v NAME:DIR` does so too")
      .argument("[name]", "a new id when left out")
      .option("--size <size>", "size of its disk (10g, sparse)")
      .option("--label <K=V>", "label of the volume", collect),
  ).action(async (name: string | undefined, options: CreateOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await context.connect(relay.signal);
    const labels = parseAnnotations(options.label ?? [], "--label");
    const sizeBytes = options.size === undefined ? undefined : parseBytes(options.size, "--size");
    const info = await runtime.volumes.create({ name, sizeBytes, labels }, { signal: relay.signal });
    if (options.json === true) context.output.object(volumeJson(info));
    else context.output.line(info.name);
  });
}

function addList(volume: Command, holder: ContextHolder): void {
  withCommonOptions(
    volume.command("ls").summary("list volumes").option("-q, --quiet", "names only, one a line"),
  ).action(async (options: ListOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    const volumes = await runtime.volumes.list();
    if (options.quiet === true) {
      for (const { name } of volumes) context.output.line(name);
      return;
    }
    context.output.table(
      ["NAME", "SIZE", "USED", "SANDBOXES"],
      volumes.map(({ name, sizeBytes, usedBytes, users }) => [
        name,
        formatBytes(sizeBytes),
        formatBytes(usedBytes),
        [...new Set(users.map(({ sandboxId }) => sandboxId))].join(" "),
      ]),
      volumes.map(volumeJson),
    );
  });
}

function addInspect(volume: Command, holder: ContextHolder): void {
  withCommonOptions(
    volume.command("inspect").summary("show all facts of volumes as JSON").argument("<name...>"),
  ).action(async (names: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    await forEachName(names, context.output, async (name) => {
      const facts = volumeJson(await runtime.volumes.get(name));
      context.output.line(JSON.stringify(facts, undefined, options.json === true ? undefined : 2));
    });
  });
}

function addRemove(volume: Command, holder: ContextHolder): void {
  withCommonOptions(
    volume
      .command("rm")
      .summary("remove volumes, and what is in them")
      .argument("<name...>")
      .option("-f, --force", "a volume that does not exist is no error"),
  ).action(async (names: string[], options: RemoveOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    await forEachName(names, context.output, async (name) => {
      try {
        await runtime.volumes.remove(name);
      } catch (error) {
        if (options.force !== true || BelljarError.from(error).reason !== "VOLUME_NOT_FOUND") throw error;
        return;
      }
      if (options.json === true) context.output.object({ removed: name });
      else context.output.line(name);
    });
  });
}

function addPrune(volume: Command, holder: ContextHolder): void {
  withCommonOptions(
    volume
      .command("prune")
      .summary("remove volumes that no container refers to and that nobody gave a name")
      .option("-a, --all", "those with names too")
      .option("-f, --force", "do not ask"),
  ).action(async (options: PruneOptions) => {
    if (options.force !== true) {
      throw new BelljarError("INVALID_ARGUMENT", "this removes volumes with everything in them", {
        remedy: "Say `--force` if that is what you want; `belljar volume ls` shows what is there.",
      });
    }
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    const { removed, freedBytes } = await runtime.volumes.prune({ all: options.all === true });
    if (options.json === true) {
      context.output.object({ removed, freedBytes });
      return;
    }
    for (const name of removed) context.output.line(name);
    context.output.line(`Total reclaimed space: ${formatBytes(freedBytes)}`);
  });
}

function volumeJson({ createdAtMs, ...info }: VolumeInfo): unknown {
  return { ...info, createdAt: new Date(createdAtMs).toISOString() };
}
