/** Sizes, counts and durations as users type them. */
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

function invalid(flag: string, text: string, wanted: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `${flag} ${JSON.stringify(text.slice(0, 60))} is not ${wanted}`, {
    facts: { flag },
  });
}
