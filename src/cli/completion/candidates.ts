/**
 * What can stand where the cursor is: read from the command tree itself, so that no command or option is forgotten. Names of
 * sandboxes and the like are asked for, and never start anything.
 */
import type { Argument, Command, Option } from "commander";

/** What is there, by the kind of thing that an argument or option names. */
export interface Names {
  sandboxes(): Promise<readonly string[]>;
  images(): Promise<readonly string[]>;
  volumes(): Promise<readonly string[]>;
  checkpoints(): Promise<readonly string[]>;
  templates(): Promise<readonly string[]>;
}

/** @param words behind the program's name; the last one is what has been typed of the present one */
export async function findCandidates(program: Command, words: readonly string[], names: Names): Promise<string[]> {
  const typed = words.at(-1) ?? "";
  const joined = /^(--[a-z-]+=)(.*)$/s.exec(typed);
  if (joined !== null) {
    const [, option = "", value = ""] = joined;
    const values = await findCandidates(program, [...words.slice(0, -1), option.slice(0, -1), value], names);
    return values.map((each) => option + each);
  }
  const place = walk(program, words.slice(0, -1));
  // bash makes three words of `--accel=tcg`, and replaces the last one.
  const present = typed === "=" && place.option !== undefined ? "" : typed;
  const all = await candidatesAt(place, present, names);
  return [...new Set(all)].filter((candidate) => candidate.startsWith(present)).sort();
}

interface Place {
  readonly command: Command;
  /** The option whose value comes next. */
  readonly option: Option | undefined;
  /** How many arguments stand before. */
  readonly argumentsBefore: number;
  /** Behind `--`, or in the command that a container is to run: nothing is ours any more. */
  readonly isForeign: boolean;
}

function walk(program: Command, words: readonly string[]): Place {
  let command = program;
  let option: Option | undefined;
  let argumentsBefore = 0;
  for (const word of words) {
    if (option !== undefined) {
      if (word !== "=") option = undefined;
      continue;
    }
    if (word === "--" || (argumentsBefore > 0 && takesCommand(command))) {
      return { command, option: undefined, argumentsBefore, isForeign: true };
    }
    if (word.startsWith("-") && word !== "-") {
      const found = command.options.find(({ long, short }) => word === long || word === short);
      if (found !== undefined && (found.required || found.optional)) option = found;
      continue;
    }
    const deeper = command.commands.find((each) => each.name() === word || each.aliases().includes(word));
    if (deeper === undefined) argumentsBefore += 1;
    else command = deeper;
  }
  const isForeign = argumentsBefore > 0 && takesCommand(command);
  return { command, option, argumentsBefore, isForeign };
}

function takesCommand(command: Command): boolean {
  return command.registeredArguments.at(-1)?.name() === "command";
}

async function candidatesAt(place: Place, present: string, names: Names): Promise<readonly string[]> {
  const { command, option, argumentsBefore, isForeign } = place;
  if (isForeign) return [];
  if (option !== undefined) return option.argChoices ?? (await named(option.attributeName(), names));
  if (present.startsWith("-")) {
    const visible = command.options.filter(({ hidden }) => !hidden);
    return ["--help", ...visible.flatMap(({ long, short }) => [long, short].filter((each) => each !== undefined))];
  }
  if (command.commands.length > 0) return visibleCommands(command).map((each) => each.name());
  const argument = argumentAt(command, argumentsBefore);
  if (argument === undefined) return [];
  return argument.argChoices ?? (await named(subjectOf(command, argument), names));
}

function visibleCommands(command: Command): Command[] {
  return command.createHelp().visibleCommands(command);
}

function argumentAt({ registeredArguments }: Command, index: number): Argument | undefined {
  const last = registeredArguments.at(-1);
  return registeredArguments[index] ?? (last?.variadic === true ? last : undefined);
}

/** `belljar image rm NAME` names an image: what the command above is about. */
function subjectOf(command: Command, argument: Argument): string {
  return argument.name() === "name" ? (command.parent?.name() ?? "") : argument.name();
}

async function named(subject: string, names: Names): Promise<readonly string[]> {
  if (subject.startsWith("sandbox")) return await names.sandboxes();
  if (subject === "image") return await names.images();
  if (subject === "checkpoint") return await names.checkpoints();
  if (subject === "template") return await names.templates();
  return subject === "volume" ? await names.volumes() : [];
}
