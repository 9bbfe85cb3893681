/**
 * JSON with one spelling per value: keys sorted, two spaces of indentation. What JSON would drop or change silently
 * (undefined in a list, NaN, Map, Date, a class instance) is a bug of the caller and refused. Properties that are
 * undefined are left out, as the decoders read absence.
 */
import { BelljarError, decodeLimits } from "../base/index.ts";

/** @throws BelljarError `INTERNAL`, naming the place in `value`; `name` is what the message calls the whole. */
export function canonicalJson(value: unknown, name: string, indent: number = 2): string {
  return JSON.stringify(sorted(value, name, 0), undefined, indent);
}

function sorted(value: unknown, path: string, depth: number): unknown {
  // As deep as the decoders read, no more and no less.
  if (depth > decodeLimits.depthMax) throw unwritable(path, `nested deeper than ${decodeLimits.depthMax} levels`);
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "string" && value.isWellFormed()) return value;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (Array.isArray(value)) return value.map((item: unknown, index) => sorted(item, `${path}[${index}]`, depth + 1));
  if (isPlainObject(value)) {
    const keys = Object.keys(value).filter((key) => value[key] !== undefined);
    return Object.fromEntries(keys.sort().map((key) => [key, sorted(value[key], `${path}.${key}`, depth + 1)]));
  }
  throw unwritable(path, `a value of type ${typeof value} cannot be kept`);
}

function isPlainObject(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function unwritable(path: string, problem: string): BelljarError {
  return new BelljarError("INTERNAL", `${path}: ${problem}`);
}
