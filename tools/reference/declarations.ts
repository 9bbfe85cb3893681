/**
 * Declarations of the library as its sources have them, found by name through the doors of the folders. The sources follow one
 * format, so that braces tell where a declaration ends; of functions and classes only what a caller sees is kept.
 */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";

export interface Declaration {
  readonly name: string;
  /** With its comment, as TypeScript. */
  readonly text: string;
}

/** Everything that a door exports, in its order. */
export async function declarationsOf(path: string): Promise<Declaration[]> {
  const text = await readFile(path, "utf8");
  const found: Declaration[] = [];
  for (const match of text.matchAll(/^export (?:type )?\{([^}]*)\} from "([^"]+)";/gm)) {
    for (const name of (match[1] ?? "")
      .split(",")
      .map((each) => each.trim().replace(/^type /, ""))
      .filter(Boolean)) {
      found.push({ name, text: await findDeclaration(join(dirname(path), match[2] ?? ""), name) });
    }
  }
  return found;
}

async function findDeclaration(path: string, name: string): Promise<string> {
  const text = await readFile(path, "utf8");
  const own = cut(text, name);
  if (own !== undefined) return own;
  for (const match of text.matchAll(/^export (?:type )?(?:\{([^}]*)\}|\*) from "([^"]+)";/gm)) {
    const names = match[1]?.split(",").map((each) => each.trim().replace(/^type /, ""));
    if (names !== undefined && !names.includes(name)) continue;
    const deeper = await findDeclaration(join(dirname(path), match[2] ?? ""), name).catch(() => undefined);
    if (deeper !== undefined) return deeper;
  }
  // Imported by the door, and handed on.
  const imported = new RegExp(`^import (?:type )?\\{[^}]*\\b${name}\\b[^}]*\\} from "([^"]+)";`, "m").exec(text)?.[1];
  if (imported !== undefined) return await findDeclaration(join(dirname(path), imported), name);
  throw new Error(`${path} does not have ${name}`);
}

/** An interface and a constant may have one name. */
function cut(text: string, name: string): string | undefined {
  const starts = text.matchAll(
    new RegExp(
      `((?:^/\\*\\*(?:(?!\\*/)[\\s\\S])*\\*/\\n)?)^export (?:async )?(interface|type|const|class|function\\*?) ${name}\\b`,
      "gm",
    ),
  );
  const found = [...starts].map((start) => {
    const [, comment = "", kind] = start;
    const from = start.index + comment.length;
    const end = kind === "type" ? text.indexOf(";\n", from) + 1 : text.indexOf("\n}", from) + 2;
    const whole = text.slice(from, end);
    const isType = kind === "interface" || kind === "type";
    const body = isType ? whole : kind?.startsWith("function") === true ? signatureOf(whole) : membersOf(whole);
    return `${comment}${body}`.replaceAll(/^export /gm, "");
  });
  return found.length === 0 ? undefined : found.join("\n\n");
}

function signatureOf(text: string): string {
  return `${text.slice(0, text.indexOf(" {\n")).replace(/async |\*/g, "")};`;
}

/** Head of a class or object, and its public members without their bodies. */
function membersOf(text: string): string {
  const lines = text.split("\n");
  const kept = [lines[0] ?? ""];
  let comment: string[] = [];
  for (let at = 1; at < lines.length - 1; at += 1) {
    const line = lines[at] ?? "";
    if (/^ {2}(?:\/\*\*| \*)/.test(line)) {
      comment.push(line);
      continue;
    }
    if (!/^ {2}[\w[]/.test(line)) continue;
    let end = at;
    while (!/^ {2}\S.*[;{]$|^ {2}\}.*[,;{]?$/.test(lines[end] ?? "") || (lines[end] ?? "").endsWith("(")) end += 1;
    const member = lines.slice(at, end + 1).join("\n");
    if (!/^ {2}(?:private|#)/.test(member)) {
      kept.push(...comment, member.replace(/^( {2})async /, "$1").replace(/ \{$/, ";"));
    }
    comment = [];
    at = end;
  }
  return [...kept, "}"].join("\n");
}
