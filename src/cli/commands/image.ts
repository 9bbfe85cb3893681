/** `belljar image`: bring images in, look at them, remove them. */
import { type Command, Option } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { GarbageReport, ImageInfo } from "../../sdk/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { forEachName } from "../for-each.ts";
import { formatBytes } from "../output.ts";
import { SignalRelay } from "../signals.ts";

interface PullOptions extends CommonOptions {
  readonly name?: string;
  readonly authFile?: string;
  readonly plainHttp?: boolean;
}

interface ImportOptions extends CommonOptions {
  readonly kind: "auto" | "oci-layout" | "oci-archive" | "docker-archive" | "rootfs";
  readonly name?: string;
}

interface RemoveOptions extends CommonOptions {
  readonly force?: boolean;
}

interface PruneOptions extends CommonOptions {
  readonly all?: boolean;
}

export function addImageCommand(program: Command, holder: ContextHolder): void {
  const image = program.command("image").summary("import, pull, list, inspect, remove and prune images");

  withCommonOptions(
    image
      .command("pull")
      .summary("get an image from a registry")
      .argument("<reference>", "registry/path:tag, as docker reads it")
      .option("--name <name>", "name to keep it under (the reference)")
      .option("--auth-file <file>", "credentials, in the format of `docker login` and `skopeo login`")
      .option("--plain-http", "allow unencrypted HTTP and unverified TLS for this registry"),
  ).action(async (reference: string, options: PullOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    const host = await context.host();
    const info = await host.images.pull(reference, {
      ...(options.name === undefined ? {} : { name: options.name }),
      ...(options.authFile === undefined ? {} : { authFile: options.authFile }),
      plainHttp: options.plainHttp === true,
      signal: relay.signal,
      progress: (step) => context.output.progress(step),
    });
    context.output.endProgress();
    printOne(context.output, info);
  });

  withCommonOptions(
    image
      .command("import")
      .summary("make an image of an archive or directory")
      .argument("<source>", "OCI layout, OCI archive, docker archive, or a root file system as tar or directory")
      .argument("[name]", "name to keep it under (what the archive says, or the file's name)")
      .addOption(
        new Option("--kind <kind>", "what the source is")
          .choices(["auto", "oci-layout", "oci-archive", "docker-archive", "rootfs"])
          .default("auto"),
      ),
  ).action(async (source: string, name: string | undefined, options: ImportOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    const host = await context.host();
    const info = await host.images.import(source, {
      ...(name === undefined ? {} : { name }),
      kind: options.kind,
      signal: relay.signal,
      progress: (step) => context.output.progress(step),
    });
    context.output.endProgress();
    printOne(context.output, info);
  });

  withCommonOptions(image.command("ls").summary("list images")).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const infos = await host.images.list();
    context.output.table(
      ["NAME", "DIGEST", "LAYERS", "SIZE", "CREATED"],
      infos.map((info) => [
        info.name,
        shortDigest(info.digest),
        String(info.layerCount),
        formatBytes(info.sizeBytes),
        info.createdAt === "" ? "-" : info.createdAt,
      ]),
      infos.map(imageJson),
    );
  });

  withCommonOptions(
    image.command("inspect").summary("show an image's configuration and layers as JSON").argument("<name>"),
  ).action(async (name: string, options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const details = await host.images.inspect(name);
    context.output.line(JSON.stringify(imageJson(details), undefined, options.json === true ? undefined : 2));
  });

  withCommonOptions(
    image
      .command("rm")
      .summary("remove images; layers that no other image has and no container uses go too")
      .argument("<name...>")
      .option(
        "-f, --force",
        "also images that containers use: their layers stay as long as these do; one that does not exist is no error",
      ),
  ).action(async (names: string[], options: RemoveOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    await forEachName(names, context.output, async (name) => {
      try {
        await host.images.remove(name, { force: options.force });
      } catch (error) {
        if (options.force !== true || BelljarError.from(error).reason !== "IMAGE_NOT_FOUND") throw error;
        return;
      }
      if (options.json === true) context.output.object({ removed: name });
      else context.output.line(name);
    });
  });

  withCommonOptions(
    image
      .command("prune")
      .summary("remove layers that no image has and no container uses")
      .option("-a, --all", "also images that no container uses"),
  ).action(async (options: PruneOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const report = await host.images.collectGarbage({ unusedImages: options.all });
    if (options.json === true) context.output.object(report);
    else for (const line of garbageLines(report)) context.output.line(line);
  });
}

/** What became of the garbage, for people. */
export function garbageLines(report: GarbageReport): string[] {
  const lines = report.imagesRemoved.map((name) => `image ${name}: removed, no container used it`);
  if (report.stagingRemoved > 0) lines.push(`unfinished imports removed: ${report.stagingRemoved}`);
  if (report.isPostponed) lines.push("layers: left as they are, since images are being added or taken; try again");
  else if (report.keptFor.length > 0) {
    lines.push(`layers: left as they are, since these sandboxes cannot be read: ${report.keptFor.join(", ")}`);
  } else lines.push(`layers removed: ${report.layersRemoved} (${formatBytes(report.bytesFreed)})`);
  return lines;
}

function printOne(
  output: { json: boolean; object(value: unknown): void; line(text: string): void },
  info: ImageInfo,
): void {
  if (output.json) output.object(imageJson(info));
  else output.line(info.name);
}

/** Not every image says when it was made. */
function imageJson({ addedAtMs, createdAt, ...info }: ImageInfo): object {
  const times = { createdAt: createdAt === "" ? undefined : createdAt, addedAt: new Date(addedAtMs).toISOString() };
  return { ...info, ...times };
}

function shortDigest(digest: string): string {
  return digest.replace("sha256:", "").slice(0, 12);
}
