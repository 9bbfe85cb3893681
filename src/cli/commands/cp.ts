/** `belljar cp`: files between this host and a container, by docker's rules; `-` is a tar stream. */
import { realpath } from "node:fs/promises";
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import { type CommonOptions, type Context, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { ContainerTree } from "../copy/container-tree.ts";
import { copyTree, isContentsOnly, nameOf, resolveDestination } from "../copy/copy-tree.ts";
import { type Endpoint, parseEndpoint } from "../copy/endpoint.ts";
import { HostDestination } from "../copy/host-destination.ts";
import { hostSource } from "../copy/host-source.ts";
import { readTar } from "../copy/tar-in.ts";
import { writeTar } from "../copy/tar-out.ts";
import { type CopyOptions, CopyReport } from "../copy/tree.ts";
import { formatBytes } from "../output.ts";
import { SignalRelay } from "../signals.ts";
import { writeFully } from "../standard-output.ts";
import { findTarget } from "../target.ts";

interface CpOptions extends CommonOptions {
  readonly archive?: boolean;
  readonly followLink?: boolean;
}

type ContainerEndpoint = Extract<Endpoint, { kind: "container" }>;
type OtherEndpoint = Exclude<Endpoint, { kind: "container" }>;

const PROGRESS_INTERVAL_MS = 200;

export function addCpCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("cp")
    .summary("copy files between this host and a container")
    .description(
      "One side is SANDBOX[/CONTAINER]:PATH, the other a path of this host, or - for a tar stream. Directories are copied with " +
        "everything in them, SRC/. only what is in them. Links are copied as links; none is followed out of the container.",
    )
    .argument("<src>", "what is copied")
    .argument("<dst>", "a directory to copy into, or the path that the copy shall have")
    .option("-a, --archive", "keep owners, and on this host setuid, setgid and sticky bits")
    .option("-L, --follow-link", "if SRC itself is a link, copy what it leads to");
  withCommonOptions(command).action(async (src: string, dst: string, options: CpOptions) => {
    const [from, to] = [parseEndpoint(src), parseEndpoint(dst)];
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    if (from.kind === "container" && to.kind !== "container") await download(context, relay, from, to, options);
    else if (to.kind === "container" && from.kind !== "container") await upload(context, relay, from, to, options);
    else {
      throw new BelljarError("INVALID_ARGUMENT", "one side must be in a container and the other must not", {
        remedy: "Write SANDBOX:PATH or SANDBOX/CONTAINER:PATH for the side in a container.",
      });
    }
  });
}

async function download(
  context: Context,
  relay: SignalRelay,
  from: ContainerEndpoint,
  to: OtherEndpoint,
  options: CpOptions,
): Promise<void> {
  await using runtime = await context.connect(relay.signal);
  const { container } = await findTarget(runtime, from.target);
  const tree = new ContainerTree(container.files, relay.signal);
  const info = await tree.stat(from.path, options.followLink === true);
  const source = { tree, path: from.path, info };
  const copy = copyOptions(context, relay, options, options.archive === true);
  if (to.kind === "stream") {
    if (process.stdout.isTTY) throw new BelljarError("INVALID_ARGUMENT", "a tar stream is not for a terminal");
    const name = isContentsOnly(from.path) ? "." : nameOf(from.path) || ".";
    await writeTar({ ...source, name }, { ...copy, keepSpecialBits: true }, (piece) =>
      writeFully(process.stdout, piece),
    );
  } else {
    const resolved = await resolveDestination(source, to.path, hostSource.stat);
    // A directory that the user has named may be a link to one; no other link here is followed.
    const final = resolved === to.path && isContentsOnly(from.path) ? await leadsTo(resolved) : resolved;
    await using destination = await HostDestination.open(final);
    await copyTree(source, { tree: destination, path: destination.staged }, copy);
    await destination.commit();
  }
  finish(context, copy.report, to.kind === "stream");
}

async function upload(
  context: Context,
  relay: SignalRelay,
  from: OtherEndpoint,
  to: ContainerEndpoint,
  options: CpOptions,
): Promise<void> {
  // What is not there is said before anybody is asked.
  const path = from.kind === "stream" ? "" : await sourcePath(from.path, options.followLink === true);
  const info = from.kind === "stream" ? undefined : await hostSource.stat(path, false);
  await using runtime = await context.connect(relay.signal);
  const { container } = await findTarget(runtime, to.target);
  const tree = new ContainerTree(container.files, relay.signal);
  const copy = copyOptions(context, relay, options, true);
  if (info === undefined) {
    if ((await tree.stat(to.path, true)).type !== "directory") {
      throw new BelljarError("NOT_A_DIRECTORY", `${to.path} in the container is not a directory`);
    }
    await readTar(process.stdin, { tree, path: to.path }, copy);
  } else {
    const named = from.kind === "host" ? from.path : path;
    const final = await resolveDestination({ path: named, info }, to.path, (where, follow) => tree.stat(where, follow));
    await copyTree({ tree: hostSource, path, info }, { tree, path: final }, copy);
  }
  finish(context, copy.report, false);
}

async function sourcePath(path: string, follow: boolean): Promise<string> {
  return follow ? await leadsTo(path) : path;
}

/** What is not there is told by who looks next. */
async function leadsTo(path: string): Promise<string> {
  return await realpath(path).catch(() => path);
}

function copyOptions(context: Context, relay: SignalRelay, options: CpOptions, keepSpecialBits: boolean): CopyOptions {
  let shownMs = performance.now();
  const report = new CopyReport((now) => {
    if (!process.stderr.isTTY || performance.now() - shownMs < PROGRESS_INTERVAL_MS) return;
    shownMs = performance.now();
    context.output.progress(`${formatBytes(now.bytes)} in ${now.files} files`);
  });
  return { archive: options.archive === true, keepSpecialBits, signal: relay.signal, report };
}

function finish(
  { output }: Context,
  { files, directories, links, bytes, skipped }: CopyReport,
  isStream: boolean,
): void {
  output.endProgress();
  for (const path of skipped)
    process.stderr.write(`belljar: ${JSON.stringify(path)} is a device, socket or fifo and was left out\n`);
  if (output.json && !isStream) output.object({ files, directories, links, bytes, skipped });
}
