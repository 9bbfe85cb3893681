import assert from "node:assert/strict";
import { test } from "node:test";
import { checkpointLimits } from "../base/index.ts";
import { settleForkOptions } from "./fork-options.ts";

test("forks are counted, and named by their number", () => {
  assert.deepEqual(settleForkOptions({}).names, [undefined]);
  assert.deepEqual(settleForkOptions(3).names, [undefined, undefined, undefined]);
  assert.deepEqual(settleForkOptions({ count: 2, name: "f{n}-{n}" }).names, ["f1-1", "f2-2"]);
  assert.deepEqual(settleForkOptions({ name: "only" }).names, ["only"]);
  assert.equal(settleForkOptions({ keepExec: true }).keepExec, true);
});

test("what is no number of forks, or names two of them alike, is refused", () => {
  for (const count of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, checkpointLimits.forksMax + 1]) {
    assert.throws(() => settleForkOptions(count), { reason: "INVALID_ARGUMENT", message: /number of forks/ });
  }
  assert.throws(() => settleForkOptions({ count: 2, name: "same" }), { reason: "INVALID_ARGUMENT", message: /"same"/ });
  assert.throws(() => settleForkOptions({ name: "../{n}" }), { reason: "INVALID_ARGUMENT" });
});
