/**
 * Fuzzer of what reads the state directory: the envelope, decoding with migrations, and sandboxes' states.
 *
 *   node fuzz/state.ts [--seed 1] [--runs 100000]      random inputs, each repeatable from seed and number
 *   node fuzz/state.ts --repro FILE                    one input from a file, with what came of it
 *
 * Every input goes to every decoder. A decoder may accept it, or throw a BelljarError whose reason is one of the three of
 * state files; what it accepts must come back the same when written and read again. More than half of the inputs get a
 * right checksum after the mutation, so that they get past it. An input that breaks a rule is kept in fuzz/corpus/state/,
 * whose files are the seeds of later runs and, in test/fault/fuzz-state.test.ts, a regression test.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { BelljarError, type Field } from "../src/base/index.ts";
import { containerSandboxSchema } from "../src/container/index.ts";
import { decodeState, encodeEnvelope, type StateSchema } from "../src/store/index.ts";
import { inputOf, type Seeds } from "./state-mutations.ts";

const CORPUS = new URL("corpus/state/", import.meta.url);
const REASONS: readonly string[] = ["STATE_MISSING", "STATE_CORRUPT", "STATE_VERSION"];
const NAME = "fuzzed.state";

export type Outcome = "accepted" | "STATE_MISSING" | "STATE_CORRUPT" | "STATE_VERSION";

interface Tree {
  readonly label: string;
  readonly children: readonly Tree[];
}

/** Uses every reading method, recursion and migrations. */
const schema: StateSchema<unknown> = {
  kind: "sandbox",
  migrations: [
    (old) => ({ ...rebuilt(old), state: old.field("running").boolean() ? "running" : "ready" }),
    (old) => ({
      ...rebuilt(old),
      state: old.field("state").string(),
      devices: old.field("devices").array((d) => d.raw),
    }),
  ],
  decode: (field) => {
    field.onlyFields(["name", "state", "vmm", "load", "annotations", "devices", "tree"]);
    return {
      name: field.field("name").string({ minLength: 1, maxLength: 63, pattern: /^[a-z0-9-]+$/ }),
      state: field.field("state").oneOf(["ready", "running", "paused", "stopped"]),
      vmm: field.field("vmm").optional((vmm) => ({
        pid: vmm.field("pid").integer({ min: 1, max: 4_194_304 }),
        startTicks: vmm.field("startTicks").integer({ min: 0 }),
      })),
      load: field.field("load").optional((load) => load.number({ min: 0 })),
      annotations: field.field("annotations").map((value) => value.string({ maxLength: 100 }), { maxItems: 8 }),
      devices: field.field("devices").array(
        (device) => ({
          bus: device.field("bus").integer({ min: 0, max: 31 }),
          readOnly: device.field("readOnly").boolean(),
        }),
        { maxItems: 16 },
      ),
      tree: field.field("tree").optional(decodeTree),
    };
  },
};

function decodeTree(field: Field): Tree {
  return { label: field.field("label").string(), children: field.field("children").array(decodeTree) };
}

/** What both migrations carry over. */
function rebuilt(old: Field): Record<string, unknown> {
  return {
    name: old.field("name").raw,
    annotations: old.field("annotations").map((value) => value.string()),
    devices: old.field("devices").raw,
  };
}

/** Gives one input to every decoder. @throws when one of them breaks its rule */
export function tryInput(input: Uint8Array): { readonly state: Outcome; readonly sandbox: Outcome } {
  return { state: tryDecoder(input, schema), sandbox: tryDecoder(input, containerSandboxSchema) };
}

function tryDecoder<T>(input: Uint8Array, { kind, migrations, decode }: StateSchema<T>): Outcome {
  return outcomeOf(() => {
    const { value, sequence } = decodeState(input, NAME, { kind, migrations, decode });
    const again = encodeEnvelope({ kind, version: migrations.length + 1, sequence }, value);
    assert.deepEqual(decodeState(again, NAME, { kind, migrations, decode }), { value, sequence });
  });
}

function outcomeOf(act: () => void): Outcome {
  try {
    act();
    return "accepted";
  } catch (error) {
    if (error instanceof BelljarError) {
      if (error.reason === "STATE_MISSING" || error.reason === "STATE_CORRUPT" || error.reason === "STATE_VERSION") {
        return error.reason;
      }
      throw new Error(`a decoder threw ${error.reason}, not one of ${REASONS}`, { cause: error });
    }
    throw new Error("a decoder threw something that is not a BelljarError", { cause: error });
  }
}

/** The corpus, in the order of its names. */
export async function readSeeds(): Promise<Seeds> {
  const names = (await readdir(CORPUS)).sort();
  const [first, ...rest] = await Promise.all(names.map((name) => readFile(new URL(name, CORPUS))));
  if (first === undefined) throw new Error("fuzz/corpus/state/ has no files");
  return [first, ...rest];
}

export interface FuzzReport {
  /** How often each outcome came, as `state accepted`, `sandbox STATE_CORRUPT`, ... */
  readonly outcomes: ReadonlyMap<string, number>;
}

/** @throws with seed and number of the run, its input as the last argument of `keep`, when a rule is broken */
export async function fuzz(
  seeds: Seeds,
  seed: number,
  runs: number,
  keep?: (input: Uint8Array) => Promise<string>,
): Promise<FuzzReport> {
  const outcomes = new Map<string, number>();
  for (let run = 0; run < runs; run += 1) {
    const input = inputOf(seeds, seed, run);
    try {
      for (const [decoder, outcome] of Object.entries(tryInput(input))) {
        const name = `${decoder} ${outcome}`;
        outcomes.set(name, (outcomes.get(name) ?? 0) + 1);
      }
    } catch (error) {
      const file = await keep?.(input);
      throw new Error(`seed ${seed}, run ${run}${file === undefined ? "" : `; --repro ${file}`}`, { cause: error });
    }
  }
  return { outcomes };
}

async function keepInput(input: Uint8Array): Promise<string> {
  const name = `found-${createHash("sha256").update(input).digest("hex").slice(0, 12)}`;
  await writeFile(new URL(name, CORPUS), input);
  return `fuzz/corpus/state/${name}`;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: "1" },
      runs: { type: "string", default: "100000" },
      repro: { type: "string" },
    },
  });
  if (values.repro !== undefined) {
    process.stdout.write(`${JSON.stringify(tryInput(await readFile(values.repro)))}\n`);
    return;
  }
  const startMs = performance.now();
  const { outcomes } = await fuzz(await readSeeds(), Number(values.seed), Number(values.runs), keepInput);
  const seconds = ((performance.now() - startMs) / 1_000).toFixed(1);
  process.stdout.write(`${values.runs} inputs from seed ${values.seed} in ${seconds} s\n`);
  for (const [name, count] of [...outcomes].sort()) process.stdout.write(`  ${name}: ${count}\n`);
}

if (import.meta.main) await main();
