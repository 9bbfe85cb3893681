/** Sizes, counts and durations as users type them. */
import { constants } from "node:os";
import { BelljarError } from "../base/index.ts";

const SIZE = /^(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?$/i;
const FACTORS: Readonly<Record<string, number>> = { "": 1, b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** Bytes of `512m`, `2g`, `1.5GiB`; powers of 1024, as docker reads them. */
export function parseBytes(text: string, flag: string): number {
  const match = SIZE.exec(text.trim());
  const factor = FACTORS[(match?.[2] ?? "").toLowerCase()];
  if (match === null || factor === undefined) {
    throw invalid(flag, text, "a size such as 256m or 2g");
  }
  return Math.floor(Number(match[1]) * factor);
}

/** Whole MiB of a size; a size that is not whole MiB is rounded up. */
export function parseMebibytes(text: string, flag: string): number {
  return Math.ceil(parseBytes(text, flag) / 2 ** 20);
}

export function parseCount(text: string, flag: string, range: { readonly min: number; readonly max: number }): number {
  const value = Number(text);
  if (!/^-?\d+$/.test(text.trim()) || value < range.min || value > range.max) {
    throw invalid(flag, text, `a whole number from ${range.min} to ${range.max}`);
  }
  return value;
}

/** Number of a signal given by name (`TERM`, `SIGTERM`) or number. */
export function parseSignal(text: string, flag: string): number {
  const name = text.trim().toUpperCase();
  const known: Readonly<Record<string, number>> = constants.signals;
  const number = /^\d+$/.test(name) ? Number(name) : known[name.startsWith("SIG") ? name : `SIG${name}`];
  if (number === undefined || number < 1 || number > 64) throw invalid(flag, text, "a signal such as TERM or 15");
  return number;
}

const AGO = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;
const DURATIONS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of `90s` or `1.5h`; a number alone is seconds. */
export function parseDuration(text: string, flag: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d|)$/.exec(text.trim());
  const unitMs = match?.[2] === "" ? 1000 : DURATIONS[match?.[2] ?? ""];
  if (match === null || unitMs === undefined) throw invalid(flag, text, "a duration such as 90s, 30m or 12h");
  return Math.round(Number(match[1]) * unitMs);
}

/** Milliseconds since the epoch: RFC 3339, seconds since the epoch, or how long ago (`10m`). */
export function parseTime(text: string, flag: string, nowMs: number): number {
  const ago = AGO.exec(text.trim());
  const unitMs = DURATIONS[ago?.[2] ?? ""];
  if (ago !== null && unitMs !== undefined) return nowMs - Number(ago[1]) * unitMs;
  if (/^\d+(?:\.\d+)?$/.test(text.trim())) return Number(text) * 1000;
  const time = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time)) throw invalid(flag, text, "a time such as 2026-01-31T12:00:00Z or 10m");
  return time;
}

function invalid(flag: string, text: string, wanted: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `${flag} ${JSON.stringify(text.slice(0, 60))} is not ${wanted}`, {
    facts: { flag },
  });
}
