/**
 * `--format`: the part of Go's templates that people type with docker. Text stands for itself; between `{{` and `}}` stand
 *
 *     .  .a.b                  a fact; `.State` finds `state` too, and `.ID` finds `id`
 *     json X                   as JSON
 *     len X                    how many
 *     join X ", "              a list, with this between its items
 *     index X 0 / index X "k"  an item of a list, or of a map
 *     range X ... end          once for each item of a list, `.` being the item
 *     if X ... else ... end    what is absent, false, 0 or empty counts as no
 *
 * and nothing else: variables, pipes and comparisons are refused, with what there is. A fact that does not exist is an error where
 * it would stand at the top; one that is only absent now, such as `.vmm.pid` of a stopped sandbox, is `<no value>`.
 */
import { BelljarError } from "../base/index.ts";

export type Template = (facts: unknown) => string;

const REMEDY =
  'There are {{.fact}}, {{json .}}, {{len .}}, {{join .list ","}}, {{index .list 0}}, {{range .list}}...{{end}} and {{if .fact}}...{{else}}...{{end}}.';
const NO_VALUE = "<no value>";

interface Operand {
  readonly kind: "path";
  readonly names: readonly string[];
}

type Word = Operand | { readonly kind: "name" | "text" | "number"; readonly text: string };

type Part = (facts: unknown, top: unknown) => string;

/** @throws BelljarError `INVALID_ARGUMENT` for what is no template, here and when a fact does not exist */
export function parseTemplate(text: string): Template {
  const parser = new Parser(text);
  const part = parser.block([]);
  return (facts) => part(facts, facts);
}

class Parser {
  readonly #pieces: string[];
  #at = 0;

  constructor(text: string) {
    // Text and actions in turn.
    this.#pieces = text.split(/\{\{-?\s*([\s\S]*?)\s*-?\}\}/);
    const rest = this.#pieces.find((piece, index) => index % 2 === 0 && piece.includes("{{"));
    if (rest !== undefined) throw invalid("a {{ has no }}");
  }

  /** Up to one of the words that end it, which is left as the present action. */
  block(ends: readonly string[]): Part {
    const parts: Part[] = [];
    for (; this.#at < this.#pieces.length; this.#at += 1) {
      const piece = this.#pieces[this.#at] ?? "";
      if (this.#at % 2 === 0) {
        const text = withEscapes(piece);
        parts.push(() => text);
      } else if (ends.includes(piece)) return join(parts);
      else parts.push(this.#action(piece));
    }
    if (ends.length > 0) throw invalid("an {{end}} is missing");
    return join(parts);
  }

  get #present(): string {
    return this.#pieces[this.#at] ?? "";
  }

  #action(action: string): Part {
    const words = wordsOf(action);
    const [first, ...rest] = words;
    if (first?.kind === "path" && rest.length === 0) return (facts, top) => toText(find(first, facts, top));
    if (first?.kind !== "name") throw invalid(`{{${action}}} is not understood`);
    const operand = rest[0];
    if (operand?.kind !== "path") throw invalid(`{{${action}}} is not understood`);
    switch (`${first.text} ${rest.length}`) {
      case "json 1":
        return (facts, top) => toJson(find(operand, facts, top));
      case "len 1":
        return (facts, top) => String(itemsOf(find(operand, facts, top)).length);
      case "join 2":
        return joined(operand, rest[1], action);
      case "index 2":
        return indexed(operand, rest[1], action);
      case "range 1":
        return this.#range(operand);
      case "if 1":
        return this.#if(operand);
      default:
        throw invalid(`{{${action}}} is not understood`);
    }
  }

  #range(operand: Operand): Part {
    this.#at += 1;
    const body = this.block(["end"]);
    return (facts, top) =>
      itemsOf(find(operand, facts, top))
        .map((item) => body(item, top))
        .join("");
  }

  #if(operand: Operand): Part {
    this.#at += 1;
    const yes = this.block(["else", "end"]);
    let no: Part = () => "";
    if (this.#present === "else") {
      this.#at += 1;
      no = this.block(["end"]);
    }
    return (facts, top) => (isTrue(find(operand, facts, top)) ? yes : no)(facts, top);
  }
}

function joined(operand: Operand, between: Word | undefined, action: string): Part {
  if (between?.kind !== "text") throw invalid(`{{${action}}} is not understood`);
  return (facts, top) =>
    itemsOf(find(operand, facts, top))
      .map(toText)
      .join(between.text);
}

function indexed(operand: Operand, key: Word | undefined, action: string): Part {
  if (key === undefined || (key.kind !== "text" && key.kind !== "number")) {
    throw invalid(`{{${action}}} is not understood`);
  }
  return (facts, top) => toText(propertyOf(find(operand, facts, top), key.text));
}

function wordsOf(action: string): Word[] {
  const words: Word[] = [];
  let rest = action;
  while (rest !== "") {
    const match = /^(?:"((?:[^"\\]|\\.)*)"|(\d+)|(\.[\w.-]*)|([a-z]+))(?:\s+|$)/.exec(rest);
    if (match === null) throw invalid(`{{${action}}} is not understood`);
    const [whole, text, number, path, name] = match;
    if (text !== undefined) words.push({ kind: "text", text: withEscapes(text) });
    else if (number !== undefined) words.push({ kind: "number", text: number });
    else if (path !== undefined) words.push({ kind: "path", names: path.split(".").filter(Boolean) });
    else words.push({ kind: "name", text: name ?? "" });
    rest = rest.slice(whole.length);
  }
  return words;
}

function find({ names }: Operand, facts: unknown, top: unknown): unknown {
  const [first] = names;
  if (facts === top && first !== undefined && keyOf(facts, first) === undefined) {
    const known = typeof facts === "object" && facts !== null ? Object.keys(facts).join(", ") : "none";
    throw invalid(`there is no fact .${first}; there are ${known}`);
  }
  return names.reduce((value: unknown, name) => propertyOf(value, name), facts);
}

function propertyOf(value: unknown, name: string): unknown {
  const key = keyOf(value, name);
  return key === undefined || typeof value !== "object" || value === null ? undefined : Reflect.get(value, key);
}

function keyOf(value: unknown, name: string): string | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (Object.hasOwn(value, name)) return name;
  const small = name.toLowerCase();
  return Object.keys(value).find((key) => key.toLowerCase() === small);
}

function itemsOf(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  return typeof value === "object" && value !== null ? Object.values(value) : [];
}

function isTrue(value: unknown): boolean {
  return typeof value === "object" && value !== null ? itemsOf(value).length > 0 : Boolean(value);
}

function toText(value: unknown): string {
  if (value === undefined || value === null) return NO_VALUE;
  return typeof value === "object" ? toJson(value) : String(value);
}

function toJson(value: unknown): string {
  return JSON.stringify(value) ?? "null";
}

function join(parts: readonly Part[]): Part {
  return (facts, top) => parts.map((part) => part(facts, top)).join("");
}

/** As docker takes it: `\t` and `\n` typed between single quotes. */
function withEscapes(text: string): string {
  return text.replaceAll(/\\([tn"\\])/g, (_, letter: string) => ({ t: "\t", n: "\n" })[letter] ?? letter);
}

function invalid(message: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `--format: ${message.slice(0, 400)}`, { remedy: REMEDY });
}
