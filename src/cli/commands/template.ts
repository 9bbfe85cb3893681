/** `belljar template`: the frozen guests that sandboxes start from. They are made when they are first needed. */
import { type Command, Option } from "commander";
import { BelljarError } from "../../base/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { formatBytes } from "../output.ts";
import { parseCount, parseMebibytes } from "../quantities.ts";
import { SignalRelay } from "../signals.ts";

const SHOWN_DIGITS = 12;

interface BuildOptions extends CommonOptions {
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
      .option("-m, --memory <size>", "memory of the VM (256m)")
      .option("--cpus <n>", "CPUs of the VM (1)")
      .addOption(new Option("--accel <how>", "acceleration").choices(["auto", "kvm", "tcg"] as const).default("auto"))
      .option("--template-domain <name>", "for sandboxes of this domain"),
  ).action(async (options: BuildOptions) => {
    const context = createContext(options, holder);
    const { memory, cpus, accel, templateDomain } = options;
    using relay = new SignalRelay();
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
    const infos = await host.templates.list();
    context.output.table(
      ["DIGEST", "MEMORY", "CPUS", "ACCELERATION", "DOMAIN", "ON DISK", "CREATED"],
      infos.map((info) => [
        info.digest.slice(0, SHOWN_DIGITS),
        `${info.memoryMib} MiB`,
        String(info.cpus),
        info.acceleration,
        info.key.domain,
        formatBytes(info.diskBytes),
        new Date(info.createdAtMs).toISOString(),
      ]),
      infos.map(({ createdAtMs, ...info }) => ({ ...info, createdAt: new Date(createdAtMs).toISOString() })),
    );
  });

  withCommonOptions(
    template
      .command("rm")
      .summary("remove templates; sandboxes that run are not touched, the next one makes a new template")
      .argument("<digest...>", "or the beginning of it"),
  ).action(async (digests: string[], options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    for (const digest of digests) {
      const removed = await host.templates.remove(digest);
      if (options.json === true) context.output.object({ digest: removed });
      else context.output.line(removed);
    }
  });
}
