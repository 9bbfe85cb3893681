/**
 * Decoding of data from outside (state files, QMP, image configurations), field by field. A `Field` is an unknown value
 * with its path; each reading method checks and returns the typed value or throws a BelljarError that names the path, what
 * was expected and what was found. Nothing is ever cast. A decoder is a plain function `(field: Field) => T`, so that
 * decoders of parts are called by decoders of wholes.
 *
 * Invariants: every string, list and map has a largest size, nesting has a largest depth, and the only error is the
 * BelljarError with the reason that the caller chose at the root.
 */
import type { ErrorReason } from "./error-reasons.ts";
import { BelljarError } from "./errors.ts";
import { decodeLimits } from "./limits.ts";

export interface StringLimits {
  /** Largest length in UTF-16 units. */
  readonly maxLength?: number;
  readonly minLength?: number;
  readonly pattern?: RegExp;
}

export interface NumberRange {
  readonly min?: number;
  readonly max?: number;
}

export interface ListLimits {
  readonly maxItems?: number;
}

/** Turns one field into a value, or throws. */
export type Decode<T> = (field: Field) => T;

/** Makes the root field; `path` is the name that errors begin with, `reason` what each of them carries. */
export function decodeField(value: unknown, path: string, reason: ErrorReason): Field {
  return new Field(value, path, reason, 0);
}

/** Parses JSON and makes its root field; text that is not JSON is an error of the same reason. */
export function parseJson(text: string, path: string, reason: ErrorReason): Field {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BelljarError(reason, `${path}: not valid JSON`, { facts: { field: path }, cause: error });
  }
  return decodeField(value, path, reason);
}

export class Field {
  readonly path: string;
  readonly #value: unknown;
  readonly #reason: ErrorReason;
  readonly #depth: number;

  constructor(value: unknown, path: string, reason: ErrorReason, depth: number) {
    this.path = path;
    this.#value = value;
    this.#reason = reason;
    this.#depth = depth;
  }

  /** JSON's null counts as absent, as it does for the writers of QMP and of OCI documents. */
  get isAbsent(): boolean {
    return this.#value === undefined || this.#value === null;
  }

  /** The value as it came, for what is only passed on; to be treated as hostile. */
  get raw(): unknown {
    return this.#value;
  }

  /** The same place with another value: a body that was migrated. */
  replaced(value: unknown): Field {
    return new Field(value, this.path, this.#reason, this.#depth);
  }

  /** A property of this record; absence is reported by the method that reads it. */
  field(name: string): Field {
    const record = this.#record();
    return this.#child(Object.hasOwn(record, name) ? record[name] : undefined, pathOf(this.path, name));
  }

  /** Refuses properties that the decoder does not know: kept, they would be lost at the next write. */
  onlyFields(names: readonly string[]): this {
    for (const name of Object.keys(this.#record())) {
      if (!names.includes(name)) throw this.#error(`unknown field ${show(name)}`);
    }
    return this;
  }

  optional<T>(decode: Decode<T>): T | undefined {
    return this.isAbsent ? undefined : decode(this);
  }

  string(limits: StringLimits = {}): string {
    const value = this.#value;
    if (typeof value !== "string") throw this.expected("a string");
    const maxLength = limits.maxLength ?? decodeLimits.stringMaxLength;
    if (value.length > maxLength) throw this.expected(`a string of at most ${maxLength} characters`);
    if (value.length < (limits.minLength ?? 0)) {
      throw this.expected(`a string of at least ${limits.minLength} characters`);
    }
    if (!value.isWellFormed()) throw this.expected("well-formed text");
    if (limits.pattern !== undefined && value.search(limits.pattern) === -1) {
      throw this.expected(`a string that matches ${limits.pattern}`);
    }
    return value;
  }

  integer(range: NumberRange = {}): number {
    const value = this.#value;
    if (typeof value !== "number" || !Number.isSafeInteger(value)) throw this.expected("an integer");
    return this.#inRange(value, range, "an integer");
  }

  number(range: NumberRange = {}): number {
    const value = this.#value;
    if (typeof value !== "number" || !Number.isFinite(value)) throw this.expected("a number");
    return this.#inRange(value, range, "a number");
  }

  boolean(): boolean {
    const value = this.#value;
    if (typeof value !== "boolean") throw this.expected("true or false");
    return value;
  }

  /** One of a closed list of words or numbers. */
  oneOf<const T extends string | number>(choices: readonly T[]): T {
    const found = choices.find((choice) => choice === this.#value);
    if (found === undefined) throw this.expected(`one of ${choices.map((choice) => show(choice)).join(", ")}`);
    return found;
  }

  array<T>(decode: Decode<T>, limits: ListLimits = {}): T[] {
    const value: unknown = this.#value;
    if (!Array.isArray(value)) throw this.expected("a list");
    this.#checkCount(value.length, limits, "a list");
    return value.map((item: unknown, index) => decode(this.#child(item, `${this.path}[${index}]`)));
  }

  /** A record whose keys are data. */
  map<T>(decode: Decode<T>, limits: ListLimits = {}): Record<string, T> {
    const entries = Object.entries(this.#record());
    this.#checkCount(entries.length, limits, "an object");
    // fromEntries defines each property: a key such as "__proto__" stays data.
    return Object.fromEntries(entries.map(([key, item]) => [key, decode(this.#child(item, pathOf(this.path, key)))]));
  }

  /** The error for a check of the caller's own: `throw field.expected("a MAC address")`. */
  expected(what: string): BelljarError {
    if (this.#value === undefined) return this.#error(`missing; expected ${what}`);
    return this.#error(`expected ${what}, found ${show(this.#value)}`);
  }

  #inRange(value: number, { min, max }: NumberRange, what: string): number {
    if (min !== undefined && value < min) throw this.expected(`${what} of at least ${min}`);
    if (max !== undefined && value > max) throw this.expected(`${what} of at most ${max}`);
    // JSON can say -0, which would not be written again as it was read.
    return value === 0 ? 0 : value;
  }

  #checkCount(count: number, limits: ListLimits, what: string): void {
    const maxItems = limits.maxItems ?? decodeLimits.itemsMax;
    if (count > maxItems) throw this.#error(`expected ${what} of at most ${maxItems} items, found ${count}`);
  }

  #record(): Readonly<Record<string, unknown>> {
    if (!isRecord(this.#value)) throw this.expected("an object");
    return this.#value;
  }

  #child(value: unknown, path: string): Field {
    if (this.#depth >= decodeLimits.depthMax) {
      throw this.#error(`nested deeper than ${decodeLimits.depthMax} levels`);
    }
    return new Field(value, path, this.#reason, this.#depth + 1);
  }

  #error(problem: string): BelljarError {
    const path = shorten(this.path, decodeLimits.shownPathMaxLength);
    return new BelljarError(this.#reason, `${path}: ${problem}`, { facts: { field: path } });
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function pathOf(parent: string, name: string): string {
  return /^[A-Za-z_][A-Za-z0-9_-]*$/.test(name) ? `${parent}.${name}` : `${parent}[${show(name)}]`;
}

function shorten(text: string, maxLength: number): string {
  return text.length <= maxLength ? text : `${text.slice(0, maxLength)}...`;
}

function show(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "an object";
  if (typeof value === "string") return JSON.stringify(shorten(value, decodeLimits.shownValueMaxLength));
  return String(value);
}
