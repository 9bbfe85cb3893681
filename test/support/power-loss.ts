/**
 * Runs a scenario on the memory disk and takes the power away after every number of operations, and for each of those
 * instants with many combinations of what had reached the platter: all of them while they are few, otherwise the first
 * ones, the extremes (nothing, everything) and a seeded sample.
 */
import assert from "node:assert/strict";
import { type Choose, type MemoryDisk, PowerLoss } from "./memory-disk.ts";
import { seededRandom } from "./random.ts";

export interface PowerLossScenario<H> {
  /** A new disk as it was before the scenario; made without faults. */
  readonly prepare: () => Promise<MemoryDisk>;
  /** What the process does; it writes down in `history` what was acknowledged to it. */
  readonly run: (disk: MemoryDisk, history: H) => Promise<void>;
  readonly newHistory: () => H;
  /** Looks at what the next process finds; throws when it may not be. */
  readonly check: (found: MemoryDisk, history: H) => Promise<void>;
}

export interface PowerLossReport {
  readonly operations: number;
  readonly combinations: number;
}

const COMBINATIONS_MAX = 2_000;
const SEED = 20_260_401;

export async function everyPowerLoss<H>(scenario: PowerLossScenario<H>): Promise<PowerLossReport> {
  const whole = await scenario.prepare();
  const before = whole.operations.length;
  await scenario.run(whole, scenario.newHistory());
  const operations = whole.operations.length - before;

  let combinations = 0;
  for (let after = 0; after <= operations; after += 1) {
    const history = scenario.newHistory();
    const disk = await scenario.prepare();
    disk.powerLossAfter = disk.operations.length + after;
    await assertPowerLoss(scenario.run(disk, history), after < operations);
    for (const choose of combinationsOf((probe) => void disk.afterPowerLoss(probe))) {
      const taken: number[] = [];
      const found = disk.afterPowerLoss((count) => {
        const choice = choose(count);
        taken.push(choice);
        return choice;
      });
      combinations += 1;
      try {
        await scenario.check(found, history);
      } catch (error) {
        const last = disk.operations.at(-1) ?? "nothing";
        throw new Error(`after ${after} operations (last: ${last}), choices ${taken.join(",")}`, { cause: error });
      }
    }
  }
  return { operations, combinations };
}

async function assertPowerLoss(run: Promise<void>, expected: boolean): Promise<void> {
  try {
    await run;
  } catch (error) {
    if (causes(error).some((cause) => cause instanceof PowerLoss)) return;
    throw error;
  }
  assert.ok(!expected, "the scenario ended although the power went");
}

function causes(error: unknown): unknown[] {
  const chain: unknown[] = [];
  for (let current = error; current !== undefined && chain.length < 16; ) {
    chain.push(current);
    current = current instanceof Error ? current.cause : undefined;
  }
  return chain;
}

/** Choosers for the points of choice that `probe` meets; the number of points may depend on the choices before. */
function* combinationsOf(probe: (choose: Choose) => void): Generator<Choose> {
  const follow = (choices: readonly number[]): Choose => {
    let point = 0;
    return (count) => Math.min(choices[point++] ?? 0, count - 1);
  };
  let choices: number[] = [];
  for (let made = 0; made < COMBINATIONS_MAX / 2; made += 1) {
    yield follow(choices);
    // The next combination in counting order: raise the last point that can be raised, drop those behind it.
    const counts: number[] = [];
    const current = follow(choices);
    probe((count) => {
      counts.push(count);
      return current(count);
    });
    let last = counts.length - 1;
    while (last >= 0 && (choices[last] ?? 0) + 1 >= (counts[last] ?? 0)) last -= 1;
    if (last < 0) return;
    choices = [...Array.from({ length: last }, (_, index) => choices[index] ?? 0), (choices[last] ?? 0) + 1];
  }
  yield (count) => count - 1;
  for (let sample = 0; sample < COMBINATIONS_MAX / 2; sample += 1) {
    const random = seededRandom(SEED + sample);
    yield (count) => random.below(count);
  }
}
