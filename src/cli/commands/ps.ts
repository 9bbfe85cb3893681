/** `belljar ps`: the sandboxes of this root. */
import type { Command } from "commander";
import { BelljarError } from "../../base/index.ts";
import type { SandboxInfo } from "../../sdk/index.ts";
import { collect } from "../container-options.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { formatAge, sandboxJson } from "../sandbox-text.ts";

interface PsOptions extends CommonOptions {
  readonly all?: boolean;
  readonly quiet?: boolean;
  readonly filter?: readonly string[];
}

export function addPsCommand(program: Command, holder: ContextHolder): void {
  const command = program
    .command("ps")
    .summary("list sandboxes")
    .option("-a, --all", "those that have stopped too")
    .option("-q, --quiet", "ids only, one a line")
    .option("-f, --filter <K=V>", "state=, name=, id=, image=, annotation=K[=V]", collect);
  withCommonOptions(command).action(async (options: PsOptions) => {
    const context = createContext(options, holder);
    const filters = (options.filter ?? []).map(parseFilter);
    await using runtime = await context.connect();
    const isNamed = options.filter?.some((filter) => filter.startsWith("state=")) === true;
    const infos = (await runtime.sandboxes.list()).filter(
      (info) =>
        (options.all === true || isNamed || info.problem !== undefined || info.state !== "stopped") &&
        filters.every((matches) => matches(info)),
    );
    if (options.quiet === true) {
      for (const { id } of infos) context.output.line(id);
      return;
    }
    context.output.table(
      ["ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATE", "CONTAINERS", "GENERATION"],
      infos.map((info) => [
        info.id,
        info.name,
        info.image,
        shorten(info.containers[0]?.command.join(" ") ?? ""),
        formatAge(info.createdAtMs, Date.now()),
        stateText(info),
        String(info.containers.length),
        String(info.generation),
      ]),
      infos.map(sandboxJson),
    );
  });
}

function stateText({ state, problem, containers }: SandboxInfo): string {
  if (problem !== undefined) return `unreadable: ${problem}`;
  const status = containers[0]?.status;
  return state === "stopped" && status !== undefined ? `stopped (${status.exitCode})` : state;
}

const COMMAND_MAX_LENGTH = 30;

function shorten(text: string): string {
  return text.length <= COMMAND_MAX_LENGTH ? text : `${text.slice(0, COMMAND_MAX_LENGTH - 3)}...`;
}

function parseFilter(text: string): (info: SandboxInfo) => boolean {
  const at = text.indexOf("=");
  const value = text.slice(at + 1);
  switch (text.slice(0, Math.max(0, at))) {
    case "state":
      return ({ state }) => state === value;
    case "name":
      return ({ name }) => name.includes(value);
    case "id":
      return ({ id }) => id.startsWith(value);
    case "image":
      return ({ image }) => image === value;
    case "annotation": {
      const [key = "", wanted] = value.split(/=(.*)/s);
      return ({ annotations }) =>
        Object.hasOwn(annotations, key) && (wanted === undefined || annotations[key] === wanted);
    }
    default:
      throw new BelljarError("INVALID_ARGUMENT", `--filter ${JSON.stringify(text.slice(0, 60))} is not a filter`, {
        remedy: "Filter by state=, name=, id=, image= or annotation=.",
      });
  }
}
