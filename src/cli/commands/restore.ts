/** `belljar restore`: a new sandbox that goes on where a checkpoint was taken; or only what would be found, and nothing started. */
import { readFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import { BelljarError, checkName, parseJson } from "../../base/index.ts";
import { parsePort } from "../../network/index.ts";
import type { RestoredContainer, RestoreReport, SpecValidation } from "../../sdk/index.ts";
import { collect } from "../container-options.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { networkConfig } from "../network-options.ts";
import { formatDuration, type Output } from "../output.ts";
import { SignalRelay } from "../signals.ts";

interface RestoreCommandOptions extends CommonOptions {
  readonly name?: string;
  readonly hostname?: string;
  readonly publish?: readonly string[];
  readonly network?: string;
  readonly dryRun?: boolean;
  readonly keepExec?: boolean;
  readonly container?: readonly string[];
  readonly spec?: readonly string[];
  readonly specValidation?: SpecValidation;
}

const STATUS_DOES_NOT_FIT = 1;

export function addRestoreCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  const command = program
    .command("restore")
    .summary("make a new sandbox of a checkpoint, and print its id")
    .description(
      "The new sandbox goes on where the checkpoint was taken, with a name, host name, machine id and random numbers of its " +
        "own. A checkpoint can be restored any number of times, also when its source is gone.",
    )
    .argument("<checkpoint>", "by id, the beginning of an id, or name")
    .option("--name <name>", "of the new sandbox (its id)")
    .option("--hostname <name>", "of the new sandbox (its id)")
    .option("-p, --publish <port>", "publish a port (those of the source, under free ports of the host)", collect)
    .option("--network <mode>", "another network than the source's: none, user, bridge or netns:PATH")
    .option("--dry-run", "say what fits and what does not, and start nothing; status 1 when something does not")
    .option("--container <name=id>", "give a container another id", collect)
    .option("--spec <name=file>", "an OCI specification that the container's own is compared with", collect)
    .addOption(
      new Option("--spec-validation <word>", "what differences between specifications are (enforce)").choices([
        "enforce",
        "warn",
        "ignore",
      ] as const),
    )
    .option("--keep-exec", "processes that `exec` had started go on; otherwise they are ended");
  withCommonOptions(command).action(async (checkpoint: string, options: RestoreCommandOptions) => {
    checkName(checkpoint, "checkpoint");
    const { name, hostname, keepExec } = options;
    const { output, connect } = createContext(options, holder);
    using relay = new SignalRelay();
    await using runtime = await connect(relay.signal);
    const { checkpoints } = runtime;
    const ports = options.publish?.flatMap(parsePort);
    const network = options.network === undefined ? undefined : networkConfig({ network: options.network });
    const request = {
      ...{ name, hostname, ports, network, keepExec },
      containers: await readContainers(options),
      specValidation: options.specValidation,
      signal: relay.signal,
    };
    if (options.dryRun === true) {
      const report = await checkpoints.check(checkpoint, request);
      printReport(output, report);
      if (!report.fits) setStatus(STATUS_DOES_NOT_FIT);
      return;
    }
    output.progress(`restoring checkpoint ${checkpoint}`);
    const beganMs = performance.now();
    const sandbox = await checkpoints.restore(checkpoint, request);
    output.note(
      `checkpoint ${checkpoint} restored as ${sandbox.name} in ${formatDuration(performance.now() - beganMs)}`,
    );
    if (output.json) output.object({ id: sandbox.id, name: sandbox.name });
    else output.line(sandbox.id);
  });
}

async function readContainers({
  container: renamed = [],
  spec: specs = [],
}: RestoreCommandOptions): Promise<readonly RestoredContainer[] | undefined> {
  const ids = new Map(renamed.map((text) => pair(text, "--container NAME=ID")));
  const files = new Map(specs.map((text) => pair(text, "--spec NAME=FILE")));
  if (ids.size + files.size === 0) return undefined;
  return await Promise.all(
    [...new Set([...ids.keys(), ...files.keys()])].map(async (name) => {
      const path = files.get(name);
      return { name, id: ids.get(name), ...(path === undefined ? {} : { spec: await readSpec(path) }) };
    }),
  );
}

function pair(text: string, form: string): readonly [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 80))} is not of the form ${form}`);
}

async function readSpec(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new BelljarError("INVALID_ARGUMENT", `the specification ${path} cannot be read`, { facts: { path }, cause });
  });
  return parseJson(text, path, "INVALID_ARGUMENT").raw;
}

function printReport(output: Output, { findings }: RestoreReport): void {
  output.table(
    ["WHAT", "FITS", "DETAIL"],
    findings.map(({ what, fits, detail }) => [what, fits ? "yes" : "no", detail]),
    findings,
  );
}
