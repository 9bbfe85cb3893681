/** A short run of the fuzzer, and every input that was ever kept. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fuzz, readSeeds, tryInput } from "../../fuzz/state.ts";
import { inputOf } from "../../fuzz/state-mutations.ts";

describe("fuzzing of the state directory", () => {
  it("keeps its rules on every kept input", async () => {
    for (const seed of await readSeeds()) tryInput(seed);
  });

  it("keeps its rules on 5,000 seeded inputs, and reaches every outcome", async () => {
    const { outcomes } = await fuzz(await readSeeds(), 7, 5_000);
    for (const decoder of ["state", "sandbox"]) {
      for (const outcome of ["accepted", "STATE_CORRUPT", "STATE_VERSION"]) {
        assert.ok((outcomes.get(`${decoder} ${outcome}`) ?? 0) > 0, `${decoder} never gave ${outcome}`);
      }
    }
  });

  it("gives the same input for the same seed and run", async () => {
    const seeds = await readSeeds();
    assert.deepEqual(inputOf(seeds, 3, 1_234), inputOf(seeds, 3, 1_234));
    assert.notDeepEqual(inputOf(seeds, 3, 1_234), inputOf(seeds, 4, 1_234));
  });
});
