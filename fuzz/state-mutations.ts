/**
 * Mutations of state files: of their bytes, of the words of their first line, and of their JSON, which are
 * sealed afterwards with right lengths and checksums, computed by code of its own.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { type Random, seededRandom } from "../test/support/random.ts";

export type Seeds = readonly [Uint8Array, ...Uint8Array[]];

/** The input of one run: a seed, changed a few times: its structure, then sealed, or its bytes, then mostly left so. */
export function inputOf(seeds: Seeds, seed: number, run: number): Uint8Array {
  const random = seededRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(run + 1, 0x85ebca6b));
  let input: Uint8Array = random.pick(seeds);
  const structural = random.below(2) === 0;
  const mutations: readonly [Mutate, ...Mutate[]] = structural
    ? [mutateJson, mutateJson, mutateJson, mutateHeader]
    : [mutateBytes, mutateBytes, mutateJson, mutateHeader];
  for (let count = random.below(structural ? 2 : 4); count >= 0; count -= 1) {
    input = random.pick(mutations)(input, random, seeds);
  }
  return structural || random.below(4) === 0 ? sealed(input) : input;
}

type Mutate = (input: Uint8Array, random: Random, seeds: Seeds) => Uint8Array;

const mutateBytes: Mutate = (input, random, seeds) => {
  const at = random.below(input.length + 1);
  const before = input.subarray(0, at);
  const after = input.subarray(at);
  switch (random.below(6)) {
    case 0: {
      const copy = Uint8Array.from(input);
      for (let flips = random.below(4); flips >= 0; flips -= 1) {
        const where = random.below(Math.max(copy.length, 1));
        copy[where] = (copy[where] ?? 0) ^ (1 << random.below(8));
      }
      return copy;
    }
    case 1:
      return before;
    case 2: {
      const other = random.pick(seeds);
      return Buffer.concat([before, other.subarray(random.below(other.length + 1))]);
    }
    case 3:
      return Buffer.concat([before, Uint8Array.from({ length: random.below(8) }, () => random.below(256)), after]);
    case 4:
      return Buffer.concat([before, after.subarray(random.below(after.length + 1))]);
    default:
      return Buffer.concat([before, after.subarray(0, random.below(64)), after]);
  }
};

/** Objects and lists in turns, as deep as `levels` asks. */
function chain(levels: number): unknown {
  return { label: "x", children: levels <= 1 ? [] : [chain(levels - 1)] };
}

/** Values that decoders have trouble with. */
const oddValues: readonly [unknown, ...unknown[]] = [
  null,
  ...[true, false, "", "x", "\0", "\ud800", "constructor", "running", "x".repeat(70_000)],
  ...[0, -0, -1, 1, 0.1, 31, 32, 2 ** 31, 2 ** 53 - 1, 2 ** 53, 1e308, 5e-324],
  ...[
    [],
    {},
    [[]],
    [{}],
    chain(1),
    chain(15),
    chain(16),
    chain(17),
    chain(500),
    Array.from({ length: 20 }, () => ({ bus: 1, readOnly: true })),
  ],
];
const oddKeys = [
  "__proto__",
  "constructor",
  "toString",
  "length",
  "0",
  "",
  "a b",
  "name",
  "devices",
  "tree",
  "begin",
  "end",
] as const;

/** Changes one value of the JSON in a random line, or behind the first line. */
const mutateJson: Mutate = (input, random) => {
  const { head, json, tail } = jsonPart(input, random);
  let text: string;
  try {
    text = JSON.stringify(changed(JSON.parse(json), random), undefined, random.below(3));
  } catch {
    text = json;
  }
  if (random.below(20) === 0)
    text = text.replace(/\d+/, random.pick(["1e999", "-0", "00", "0x1", "1e-999", "9".repeat(400)]));
  if (random.below(20) === 0) text = text.replace(/"[a-z]+":/, (key) => `${key} 1, ${key}`);
  if (random.below(500) === 0) text = nest("[", "]", random, text);
  return Buffer.concat([head, Buffer.from(text), tail]);
};

function nest(open: string, close: string, random: Random, text: string): string {
  const depth = random.pick([2, 31, 32, 33, 1_000, 20_000]);
  return `${open.repeat(depth)}${text}${close.repeat(depth)}`;
}

function changed(value: unknown, random: Random): unknown {
  const stop = random.below(3) === 0;
  if (stop || typeof value !== "object" || value === null) return random.pick(oddValues);
  if (Array.isArray(value)) {
    const list: unknown[] = [...value];
    const at = random.below(list.length + 1);
    if (random.below(4) === 0) list.splice(at, 1);
    else list[at] = changed(list[at], random);
    return list;
  }
  const entries: [string, unknown][] = Object.entries(value);
  const at = random.below(entries.length + 1);
  const [key, old] = entries[at] ?? [random.pick(oddKeys), random.pick(oddValues)];
  if (random.below(4) === 0) entries.splice(at, 1);
  else entries[at] = [random.below(6) === 0 ? random.pick(oddKeys) : key, changed(old, random)];
  return Object.fromEntries(entries);
}

const oddWords = [
  "0",
  "1",
  "2",
  "3",
  "4",
  "-1",
  "1.5",
  "999999999",
  "9999999999999999",
  "sandbox",
  "lamp",
  "",
  " ",
] as const;

/** Changes one word of the first line. */
const mutateHeader: Mutate = (input, random) => {
  const text = Buffer.from(input).toString("latin1");
  const end = Math.max(text.indexOf("\n"), 0);
  const words = text.slice(0, end).split(/(?<=[ =])/);
  const at = random.below(Math.max(words.length, 1));
  if (random.below(4) === 0) words.splice(at, 1);
  else words[at] = `${random.pick(oddWords)}${random.below(4) === 0 ? "" : (/[ =]$/.exec(words[at] ?? "")?.[0] ?? "")}`;
  return Buffer.from(words.join("") + text.slice(end), "latin1");
};

interface JsonPart {
  readonly head: Uint8Array;
  readonly json: string;
  readonly tail: Uint8Array;
}

function jsonPart(input: Uint8Array, random: Random): JsonPart {
  const bytes = Buffer.from(input);
  const isState = bytes.subarray(0, 8).toString("latin1") === "belljar-";
  const lineStart = isState ? bytes.indexOf("\n") + 1 : bytes.lastIndexOf("\n", random.below(bytes.length + 1)) + 1;
  const start = isState ? lineStart : Math.min(lineStart + 9, bytes.length);
  const newline = isState ? -1 : bytes.indexOf("\n", start);
  const end = newline === -1 ? bytes.length : newline;
  return {
    head: bytes.subarray(0, start),
    json: bytes.subarray(start, end).toString("utf8"),
    tail: bytes.subarray(end),
  };
}

/** Makes every length and checksum right, by code of its own. */
function sealed(input: Uint8Array): Uint8Array {
  const bytes = Buffer.from(input);
  if (bytes.subarray(0, 8).toString("latin1") !== "belljar-") {
    const lines = bytes.toString("latin1").split("\n");
    const whole = lines.map((line, index) => (index === lines.length - 1 ? line : sealedRecord(line.slice(9))));
    return Buffer.from(whole.join("\n"), "latin1");
  }
  const end = bytes.indexOf("\n");
  const body = end === -1 ? Buffer.alloc(0) : bytes.subarray(end + 1);
  const line = bytes
    .subarray(0, end === -1 ? bytes.length : end)
    .toString("latin1")
    .replace(/ sha256=.*$/, "")
    .replace(/length=\d+/, `length=${body.length}`);
  const sum = createHash("sha256").update(`${line}\n`, "latin1").update(body).digest("hex");
  return Buffer.concat([Buffer.from(`${line} sha256=${sum}\n`, "latin1"), body]);
}

function sealedRecord(text: string): string {
  return `${crc32(Buffer.from(text, "latin1")).toString(16).padStart(8, "0")} ${text}`;
}
