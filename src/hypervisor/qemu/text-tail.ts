/**
 * The last bytes of a stream that a guest or a VMM wrote, for people to read: bounded, and without anything that a terminal
 * would obey.
 */
import { open } from "node:fs/promises";
import { hasErrno, vmmLimits } from "../../base/index.ts";

/** Terminal sequences (CSI, OSC, two-character escapes). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const TERMINAL_SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_c])/g;

export function cleanText(text: string): string {
  return text
    .replaceAll("\r\n", "\n")
    .replaceAll("\r", "\n")
    .replace(TERMINAL_SEQUENCES, "")
    .replace(/[^\P{C}\n\t]/gu, "")
    .replace(/\n{2,}/g, "\n");
}

/** The last lines of a text, cleaned. */
export function lastLines(text: string, linesMax: number = vmmLimits.logTailLines): string[] {
  return cleanText(text)
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
    .slice(-linesMax)
    .map((line) => (line.length > LINE_MAX ? `${line.slice(0, LINE_MAX)}...` : line));
}

/** Characters of one line that an error shows. */
const LINE_MAX = 400;

/** Keeps the last bytes of what is pushed. */
export class TextTail {
  #kept: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): void {
    this.#kept = Buffer.concat([this.#kept, chunk]).subarray(-vmmLimits.logTailBytes);
  }

  text(): string {
    return cleanText(this.#kept.toString("utf8"));
  }
}

/** The end of a file; empty when there is no such file. */
export async function readTail(path: string): Promise<string> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    const bytes = Math.min(size, vmmLimits.logTailBytes);
    const buffer = Buffer.alloc(bytes);
    const { bytesRead } = await file.read(buffer, 0, bytes, size - bytes);
    return buffer.subarray(0, bytesRead).toString("utf8");
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return "";
    throw error;
  }
}
