/** `belljar ps`: the sandboxes of this root. */
import type { Command } from "commander";
import { BelljarError, shownStates } from "../../base/index.ts";
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
    const matches = parseFilters(options.filter ?? []);
    await using runtime = await context.connect();
    const isNamed = options.filter?.some((filter) => /^stat(e|us)=/.test(filter)) === true;
    const infos = (await runtime.sandboxes.list()).filter(
      (info) =>
        (options.all === true || isNamed || info.problem !== undefined || info.state !== "stopped") && matches(info),
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

type Match = (info: SandboxInfo) => boolean;

/** As docker has it: of several values of one key any will do, of several annotations all must be there. */
function parseFilters(filters: readonly string[]): Match {
  const byKey = new Map<string, Match[]>();
  for (const text of filters) {
    const at = text.indexOf("=");
    const [key, value] = [text.slice(0, Math.max(0, at)), text.slice(at + 1)];
    const place = key === "annotation" ? text : key;
    byKey.set(place, [...(byKey.get(place) ?? []), parseFilter(key, value, text)]);
  }
  return (info) => [...byKey.values()].every((any) => any.some((match) => match(info)));
}

function parseFilter(key: string, value: string, text: string): Match {
  switch (key) {
    case "state":
    case "status": {
      const wanted = shownStates.find((state) => state === value);
      if (wanted !== undefined) return ({ state }) => state === wanted;
      throw new BelljarError("INVALID_ARGUMENT", `--filter: ${JSON.stringify(value.slice(0, 60))} is not a state`, {
        remedy: `There are ${shownStates.join(", ")}.`,
      });
    }
    case "name":
      return ({ name }) => name.includes(value);
    case "id":
      return ({ id }) => id.startsWith(value);
    case "image":
      return ({ image }) => image === value || image === `${value}:latest`;
    case "annotation": {
      const [name = "", wanted] = value.split(/=(.*)/s);
      return ({ annotations }) =>
        Object.hasOwn(annotations, name) && (wanted === undefined || annotations[name] === wanted);
    }
    default:
      throw new BelljarError("INVALID_ARGUMENT", `--filter ${JSON.stringify(text.slice(0, 60))} is not a filter`, {
        remedy: "Filter by state=, name=, id=, image= or annotation=.",
      });
  }
}
