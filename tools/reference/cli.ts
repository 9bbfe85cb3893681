/** docs/reference/cli.md, made from the command tree itself. */
import type { Command, Option } from "commander";
import { buildProgram } from "../../src/cli/program.ts";

export const cliPagePath = "docs/reference/cli.md";

const HEAD = `# Command line

<!-- Made from src/cli by \`npm run generate\`. -->

In a clone the program is \`bin/belljar\`. Sandboxes are named by their name, their id, or an unambiguous beginning of it; where
\`SANDBOX[/CONTAINER]\` stands, a container of it too. Lists and streams print one object a line with \`--json\`, everything else one object;
times are RFC 3339, sizes bytes. The exit status is the workload's own where there is one; 125 Belljar failed, 126 the command cannot be
executed, 127 it does not exist, 128+N ended by signal N. Colours are never used; what is redrawn in place is so on a terminal only.

Every command takes \`--root\`, \`--json\` and \`--log-level\`, before its name or behind it; they are not repeated below.
`;

const COMMON = new Set(["--root", "--json", "--log-level", "--help", "--version"]);

export function renderCliPage(): string {
  const program = buildProgram({ output: undefined }, () => {});
  const commands = leavesOf(program, []);
  const rows = commands.map(({ words, command }) => {
    const name = words.join(" ");
    return `| [\`belljar ${name}\`](#belljar-${words.join("-")}) | ${command.summary()} |`;
  });
  const sections = commands.map(({ words, command }) => renderCommand(words, command));
  return `${[HEAD, "| command | what it does |", "| --- | --- |", ...rows, "", sections.join("\n\n")].join("\n")}\n`;
}

interface Leaf {
  readonly words: readonly string[];
  readonly command: Command;
}

function leavesOf(command: Command, words: readonly string[]): Leaf[] {
  const below = command.createHelp().visibleCommands(command);
  return below.flatMap((each) => {
    if (each.name() === "help") return [];
    const deeper = [...words, each.name()];
    return each.commands.length > 0 ? leavesOf(each, deeper) : [{ words: deeper, command: each }];
  });
}

function renderCommand(words: readonly string[], command: Command): string {
  const description = command.description();
  const parts = [`## belljar ${words.join(" ")}`, "", sentence(command.summary())];
  if (description !== "" && description !== command.summary()) parts.push("", description);
  const aliases = command.aliases().map((alias) => `\`${alias}\``);
  const alias = aliases.length === 0 ? [] : ["", `Also: ${aliases.join(", ")}.`];
  parts.push("", "```", `belljar ${words.join(" ")} ${command.usage()}`, "```", ...alias);
  const given = command.registeredArguments.filter(({ description: text }) => text !== "");
  const options = command.options.filter(({ long, hidden }) => !hidden && !COMMON.has(long ?? ""));
  if (given.length + options.length > 0) {
    parts.push("", "| argument or option | meaning |", "| --- | --- |");
    for (const argument of given) parts.push(`| \`${cell(argument.name())}\` | ${cell(argument.description)} |`);
    for (const option of options) parts.push(`| \`${cell(option.flags)}\` | ${cell(meaningOf(option))} |`);
  }
  return parts.join("\n");
}

function meaningOf({ description, argChoices, defaultValue }: Option): string {
  const choices = argChoices === undefined ? [] : [`one of ${argChoices.map((each) => `\`${each}\``).join(", ")}`];
  const usual = typeof defaultValue === "string" ? [`\`${defaultValue}\` unless told`] : [];
  return [description, ...choices, ...usual].join("; ");
}

function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}.`;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}
