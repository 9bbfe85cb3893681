/** What the CLI prints: tables and JSON on standard output, progress and errors on standard error. */
import type { BelljarError, LogLevel } from "../base/index.ts";
import { messageChain } from "../base/index.ts";

export interface Output {
  readonly json: boolean;
  line(text: string): void;
  /** One JSON object on a line of its own. */
  object(value: unknown): void;
  /** Rows under a head, columns aligned; with `--json` one object per row instead. */
  table(head: readonly string[], rows: readonly (readonly string[])[], objects: readonly unknown[]): void;
  /** A line about long work: rewritten in place on a terminal, one line per step elsewhere. */
  progress(text: string): void;
  endProgress(): void;
  /** What came of long work, in a line that stays. */
  note(text: string): void;
  error(error: BelljarError): void;
}

export interface OutputDeps {
  readonly json: boolean;
  readonly logLevel: LogLevel;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

// Line feeds stay: a message may have several lines. Everything else that could move a terminal's cursor goes.
// biome-ignore lint/suspicious/noControlCharactersInRegex: removing them is the point
const CONTROL_CHARACTERS = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g;

/** What somebody else has named, a user or a guest, on one line and without power over the terminal. */
export function shownText(text: string): string {
  return text.replaceAll("\n", " ").replace(CONTROL_CHARACTERS, " ");
}

export function createOutput(deps: OutputDeps): Output {
  let progressShown = false;
  const clearProgress = (): void => {
    if (!progressShown) return;
    deps.stderr.write("\r\u001b[2K");
    progressShown = false;
  };
  const stay = (text: string): void => {
    clearProgress();
    deps.stderr.write(`belljar: ${text.replace(CONTROL_CHARACTERS, " ")}\n`);
  };
  return {
    json: deps.json,
    line: (text) => deps.stdout.write(`${text}\n`),
    object: (value) => deps.stdout.write(`${toJson(value)}\n`),
    table: (head, rows, objects) => {
      if (deps.json) {
        for (const each of objects) deps.stdout.write(`${toJson(each)}\n`);
        return;
      }
      const all = [head, ...rows.map((row) => row.map(shownText))];
      const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
      for (const row of all) {
        const cells = row.map((cell, column) => cell.padEnd(widths[column] ?? 0));
        deps.stdout.write(`${cells.join("   ").trimEnd()}\n`);
      }
    },
    progress: (text) => {
      if (!deps.stderr.isTTY) {
        stay(text);
        return;
      }
      clearProgress();
      deps.stderr.write(`belljar: ${text.replace(CONTROL_CHARACTERS, " ")}`.slice(0, deps.stderr.columns - 1));
      progressShown = true;
    },
    endProgress: clearProgress,
    note: stay,
    error: (error) => {
      clearProgress();
      deps.stderr.write(`belljar: ${formatError(error)}\n`);
      if (error.remedy !== undefined) deps.stderr.write(`${error.remedy}\n`);
      if (deps.logLevel === "debug") deps.stderr.write(`${stackOf(error)}\n`);
    },
  };
}

/** Counters are bigint; as numbers they are exact up to 2^53, which is years of microseconds. */
function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? Number(item) : item));
}

/** `what failed: cause: cause of the cause`, on one line. */
export function formatError(error: BelljarError): string {
  return shownText(messageChain(error).join(": "));
}

function stackOf(error: Error): string {
  const own = error.stack ?? error.message;
  return error.cause instanceof Error ? `${own}\ncaused by: ${stackOf(error.cause)}` : own;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"] as const;

/** Bytes for people, in powers of 1000 as docker shows them. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** A duration for people. */
export function formatDuration(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;
}
