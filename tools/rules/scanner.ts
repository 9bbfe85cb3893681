/**
 * Reads TypeScript as far as the rules need it: where code ends and comments, strings, templates and regular expressions
 * begin. Not a parser: TypeScript 7 has no JavaScript API for one (docs/decisions/source-rules.md).
 *
 * Invariant: `code` has the length and the lines of the source, so that an offset means the same in both.
 */

export interface Literal {
  /** Offset of the first character, the quote included. */
  readonly offset: number;
  readonly text: string;
}

export interface ScannedSource {
  /** The source with the contents of comments, strings and regular expressions blanked; quotes stay. */
  readonly code: string;
  readonly strings: readonly Literal[];
  readonly comments: readonly Literal[];
}

/** After these words a slash begins a regular expression, not a division. */
const BEFORE_EXPRESSION = new Set(
  "return typeof case in of new delete void throw await yield else do instanceof".split(" "),
);

export function scanSource(source: string): ScannedSource {
  return new Scanner(source).run();
}

class Scanner {
  readonly #source: string;
  readonly #code: string[];
  readonly #strings: Literal[] = [];
  readonly #comments: Literal[] = [];
  /** For each template expression that is open, how many braces are open inside it. */
  readonly #templates: number[] = [];
  #at = 0;

  constructor(source: string) {
    this.#source = source;
    this.#code = source.split("");
  }

  run(): ScannedSource {
    if (this.#source.startsWith("#!")) this.#takeComment(this.#endOfLine());
    while (this.#at < this.#source.length) this.#step();
    return { code: this.#code.join(""), strings: this.#strings, comments: this.#comments };
  }

  #step(): void {
    const two = this.#source.slice(this.#at, this.#at + 2);
    const character = two[0];
    if (two === "//") this.#takeComment(this.#endOfLine());
    else if (two === "/*") this.#takeComment(this.#after("*/", this.#at + 2));
    else if (character === '"' || character === "'") this.#takeString(character);
    else if (character === "`") this.#takeTemplate();
    else if (character === "/" && this.#expectsExpression()) this.#takeRegExp();
    else this.#takeCode(character);
  }

  #takeCode(character: string | undefined): void {
    const depth = this.#templates.at(-1);
    this.#at += 1;
    if (depth === undefined) return;
    if (character === "{") this.#templates[this.#templates.length - 1] = depth + 1;
    if (character !== "}") return;
    if (depth > 0) this.#templates[this.#templates.length - 1] = depth - 1;
    else {
      this.#templates.pop();
      this.#at -= 1;
      this.#takeTemplate();
    }
  }

  #takeComment(end: number): void {
    this.#comments.push({ offset: this.#at, text: this.#source.slice(this.#at, end) });
    this.#blank(this.#at, end);
    this.#at = end;
  }

  #takeString(quote: string): void {
    let end = this.#at + 1;
    while (end < this.#source.length && this.#source[end] !== quote && this.#source[end] !== "\n") {
      end += this.#source[end] === "\\" ? 2 : 1;
    }
    this.#strings.push({ offset: this.#at, text: this.#source.slice(this.#at + 1, end) });
    this.#blank(this.#at + 1, end);
    this.#at = end + 1;
  }

  /** From a backtick, or from the brace that ends an expression, to the next expression or the end. */
  #takeTemplate(): void {
    const start = this.#at;
    let end = start + 1;
    while (end < this.#source.length && this.#source[end] !== "`" && this.#source.slice(end, end + 2) !== "${") {
      end += this.#source[end] === "\\" ? 2 : 1;
    }
    this.#strings.push({ offset: start, text: this.#source.slice(start + 1, end) });
    this.#blank(start + 1, end);
    const opensExpression = this.#source[end] === "$";
    if (opensExpression) this.#templates.push(0);
    this.#at = end + (opensExpression ? 2 : 1);
  }

  #takeRegExp(): void {
    let end = this.#at + 1;
    let inClass = false;
    while (end < this.#source.length && this.#source[end] !== "\n") {
      const character = this.#source[end];
      if (character === "/" && !inClass) break;
      if (character === "[") inClass = true;
      if (character === "]") inClass = false;
      end += character === "\\" ? 2 : 1;
    }
    this.#blank(this.#at + 1, end);
    this.#at = end + 1;
  }

  #expectsExpression(): boolean {
    const before = this.#code
      .slice(Math.max(0, this.#at - 200), this.#at)
      .join("")
      .trimEnd();
    if (before === "") return true;
    const word = /[A-Za-z_$][\w$]*$/.exec(before)?.[0];
    if (word !== undefined) return BEFORE_EXPRESSION.has(word);
    return !/[\w$)\]"'`]$/.test(before);
  }

  #endOfLine(): number {
    const end = this.#source.indexOf("\n", this.#at);
    return end === -1 ? this.#source.length : end;
  }

  #after(text: string, from: number): number {
    const found = this.#source.indexOf(text, from);
    return found === -1 ? this.#source.length : found + text.length;
  }

  #blank(start: number, end: number): void {
    for (let index = start; index < Math.min(end, this.#code.length); index += 1) {
      if (this.#code[index] !== "\n") this.#code[index] = " ";
    }
  }
}
