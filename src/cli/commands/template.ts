/** `belljar template`: the frozen guests that sandboxes start from. They are made when they are first needed. */
import { type Command, Option } from "commander";
import { BelljarError, checkName } from "../../base/index.ts";
import type { CheckpointInfo, TemplateInfo } from "../../sdk/index.ts";
import { checkpointBytes, checkpointJson } from "../checkpoint-text.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { forEachName } from "../for-each.ts";
import { formatBytes } from "../output.ts";
import { parseCount, parseMebibytes } from "../quantities.ts";
import { SignalRelay } from "../signals.ts";

const SHOWN_DIGITS = 12;

interface BuildOptions extends CommonOptions {
  readonly from?: string;
  readonly name?: string;
  readonly memory?: string;
  readonly cpus?: string;
  readonly accel: "auto" | "kvm" | "tcg";
  readonly templateDomain?: string;
}

export function addTemplateCommand(program: Command, holder: ContextHolder): void {
  const template = program
    .command("template")
    .summary("build, list and remove the frozen guests that sandboxes start from");

  withCommonOptions(
    template
      .command("build")
      .summary("make the template that sandboxes of this size start from, unless it is there; prints its digest")
      .description(
        "With --from the template is made of a sandbox as it runs, which goes on: what is started from it with `run --template` or " +
          "`create --template` has everything loaded, and shares its memory until it changes it.",
      )
      .option("--from <sandbox>", "a sandbox that runs")
      .option("--name <name>", "with --from: of the template (its id)")
      .option("-m, --memory <size>", "memory of the VM (256m)")
      .option("--cpus <n>", "CPUs of the VM (1)")
      .addOption(new Option("--accel <how>", "acceleration").choices(["auto", "kvm", "tcg"] as const).default("auto"))
      .option("--template-domain <name>", "for sandboxes of this domain"),
  ).action(async (options: BuildOptions) => {
    const context = createContext(options, holder);
    const { memory, cpus, accel, templateDomain, from, name } = options;
    using relay = new SignalRelay();
    if (from !== undefined) {
      checkName(from, "sandbox");
      if (memory !== undefined || cpus !== undefined || accel !== "auto" || templateDomain !== undefined) {
        throw new BelljarError("INVALID_ARGUMENT", "--from: the template has the size and the domain of the sandbox");
      }
      await using runtime = await context.connect(relay.signal);
      const sandbox = await runtime.sandboxes.get(from);
      context.output.progress(`making a template of ${sandbox.name}`);
      const info = await sandbox.checkpoint({ name, asTemplate: true, signal: relay.signal });
      context.output.endProgress();
      if (context.output.json) context.output.object({ digest: info.digest, id: info.id, name: info.name });
      else context.output.line(info.digest);
      return;
    }
    if (name !== undefined)
      throw new BelljarError("INVALID_ARGUMENT", "--name is of a template that is made --from a sandbox");
    const { signal } = relay;
    await using runtime = await context.connect(signal);
    // The first sandbox of a size makes its template: this one does nothing else.
    await using sandbox = await runtime.sandboxes.create(
      {
        image: "busybox",
        ...(memory === undefined ? {} : { memoryMib: parseMebibytes(memory, "--memory") }),
        ...(cpus === undefined ? {} : { cpus: parseCount(cpus, "--cpus", { min: 1, max: 32 }) }),
        acceleration: accel,
        templateDomain,
      },
      { signal, start: false, progress: (step) => context.output.progress(step) },
    );
    context.output.endProgress();
    const digest = (await sandbox.info()).vmm?.template;
    if (digest === undefined) {
      throw new BelljarError("TEMPLATE_FAILED", "the VM was booted without a template", {
        remedy: "The daemon's log, belljard.log in the root, says why.",
      });
    }
    if (context.output.json) context.output.object({ digest });
    else context.output.line(digest);
  });

  withCommonOptions(template.command("ls").summary("list templates")).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const empty = await host.templates.list();
    const warm = await host.templates.listWarm();
    context.output.table(
      ["DIGEST", "NAME", "SANDBOX", "MEMORY", "CPUS", "ACCELERATION", "DOMAIN", "ON DISK", "CREATED"],
      [
        ...empty.map((info) => [...shown(info, "-", "-"), info.key.domain, formatBytes(info.diskBytes), timeOf(info)]),
        ...warm.map((info) => [
          ...shown(info, info.name, info.source.name),
          "-",
          formatBytes(checkpointBytes(info)),
          timeOf(info),
        ]),
      ],
      [...empty.map(emptyJson), ...warm.map(checkpointJson)],
    );
  });

  withCommonOptions(
    template
      .command("inspect")
      .summary("show all facts of templates as JSON")
      .argument("<template...>", "by name, digest, or the beginning of it"),
  ).action(async (names: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const [empty, warm] = [await host.templates.list(), await host.templates.listWarm()];
    const all = [
      ...empty.map((info) => ({ id: info.digest, name: info.digest, digest: info.digest, facts: emptyJson(info) })),
      ...warm.map((info) => ({ ...info, facts: checkpointJson(info) })),
    ];
    await forEachName(names, context.output, async (name) => {
      const { facts } = findIn(all, name) ?? notFound(name);
      context.output.line(JSON.stringify(facts, undefined, options.json === true ? undefined : 2));
    });
  });

  withCommonOptions(
    template
      .command("rm")
      .summary("remove templates; sandboxes that run are not touched, the next one makes a new template")
      .argument("<template...>", "by name, digest, or the beginning of it"),
  ).action(async (names: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    await forEachName(names, context.output, async (name) => {
      const warm = await host.templates.listWarm();
      const found = findIn(warm, name);
      const removed = found === undefined ? await host.templates.remove(name) : await removeWarm(context, found);
      if (options.json === true) context.output.object({ digest: removed });
      else context.output.line(removed);
    });
  });
}

function shown(info: TemplateInfo | CheckpointInfo, name: string, sandbox: string): string[] {
  const { digest, memoryMib, cpus, acceleration } = info;
  return [digest.slice(0, SHOWN_DIGITS), name, sandbox, `${memoryMib} MiB`, String(cpus), acceleration];
}

function timeOf({ createdAtMs }: TemplateInfo | CheckpointInfo): string {
  return new Date(createdAtMs).toISOString();
}

/** `memoryBytes` of it is what its VM has. */
function emptyJson({ createdAtMs, memoryMib: _, ...info }: TemplateInfo): object {
  return { ...info, createdAt: new Date(createdAtMs).toISOString() };
}

/** @throws BelljarError `INVALID_ARGUMENT` when the beginning of a digest fits several */
function findIn<T extends Pick<CheckpointInfo, "id" | "name" | "digest">>(
  templates: readonly T[],
  name: string,
): T | undefined {
  const exact = templates.find((each) => each.id === name || each.name === name);
  const fitting = name === "" ? [] : templates.filter(({ digest }) => digest.startsWith(name));
  if (exact !== undefined || fitting.length < 2) return exact ?? fitting[0];
  throw new BelljarError("INVALID_ARGUMENT", `${fitting.length} templates begin with ${name}`);
}

function notFound(name: string): never {
  throw new BelljarError("TEMPLATE_NOT_FOUND", `there is no template ${JSON.stringify(name.slice(0, 80))}`);
}

/** Through the owner of the root, who knows whether a sandbox is just being started from it. */
async function removeWarm(context: Context, { id, digest }: CheckpointInfo): Promise<string> {
  await using runtime = await context.connect();
  await runtime.checkpoints.remove(id);
  return digest;
}
