/**
 * JSON documents of images, which anybody may have written: bounded, no key twice in one object (two programs may take
 * different ones), and read field by field through `Fields`, which names the field in its errors.
 */
import { BelljarError, imageLimits } from "../base/index.ts";

const DEPTH_MAX = 64;

/** @throws BelljarError `IMAGE_INVALID` */
export function parseDocument(data: Buffer, what: string): Fields {
  if (data.length > imageLimits.documentMaxBytes)
    throw invalid(`${what} has more than ${imageLimits.documentMaxBytes} bytes`);
  const text = data.toString("utf8");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new BelljarError("IMAGE_INVALID", `${what} is not JSON`, { cause: error });
  }
  refuseDuplicateKeys(text, what);
  return new Fields(value, what);
}

/** One pass over text that JSON.parse has accepted. */
function refuseDuplicateKeys(text: string, what: string): void {
  const objects: (Set<string> | undefined)[] = [];
  const token = /"(?:[^"\\]|\\.)*"|[{}[\]]/gs;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const [found] = match;
    if (found === "{" || found === "[") objects.push(found === "{" ? new Set() : undefined);
    else if (found === "}" || found === "]") objects.pop();
    else if (objects.at(-1) !== undefined && /^\s*:/.test(text.slice(token.lastIndex, token.lastIndex + 64))) {
      const key = String(JSON.parse(found));
      const keys = objects.at(-1);
      if (keys?.has(key) === true)
        throw invalid(`${what} has the key ${JSON.stringify(key.slice(0, 100))} twice in one object`);
      keys?.add(key);
    }
    if (objects.length > DEPTH_MAX) throw invalid(`${what} is nested more than ${DEPTH_MAX} levels deep`);
  }
}

function invalid(message: string): BelljarError {
  return new BelljarError("IMAGE_INVALID", message);
}

/** A JSON value that should be an object, read one field at a time. A field that is null counts as absent, as in Go. */
export class Fields {
  readonly #object: ReadonlyMap<string, unknown>;
  readonly what: string;

  constructor(value: unknown, what: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw invalid(`${what} is not a JSON object`);
    this.#object = new Map(Object.entries(value));
    this.what = what;
  }

  text(name: string): string | undefined {
    const value = this.#get(name);
    if (value === undefined || typeof value === "string") return value;
    throw this.#wrong(name, "a string");
  }

  /** A string that must be there. */
  needText(name: string): string {
    const value = this.text(name);
    if (value === undefined) throw this.#wrong(name, "present");
    return value;
  }

  /** A whole number, not negative, that must be there. */
  needCount(name: string): number {
    const value = this.#get(name);
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    throw this.#wrong(name, "a whole number");
  }

  texts(name: string): string[] | undefined {
    const value = this.#get(name);
    if (value === undefined) return undefined;
    const texts = Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
    if (!Array.isArray(value) || texts.length !== value.length) throw this.#wrong(name, "a list of strings");
    return texts;
  }

  object(name: string): Fields | undefined {
    const value = this.#get(name);
    return value === undefined ? undefined : new Fields(value, `${this.what}: ${name}`);
  }

  objects(name: string): Fields[] | undefined {
    const value = this.#get(name);
    if (value === undefined) return undefined;
    if (!Array.isArray(value)) throw this.#wrong(name, "a list");
    return value.map((item: unknown, index) => new Fields(item, `${this.what}: ${name}[${index}]`));
  }

  keys(): string[] {
    return [...this.#object.keys()];
  }

  #get(name: string): unknown {
    return this.#object.get(name) ?? undefined;
  }

  #wrong(name: string, should: string): BelljarError {
    return invalid(`${this.what}: the field ${name} is not ${should}`);
  }
}
