/** A short run of the link's fuzzer; what it finds is kept by hand in its own tests. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fuzz } from "../../fuzz/ttrpc.ts";

test("neither end of the link is harmed by what the other may send", async () => {
  const outcomes = await fuzz(20_260_101, 1_500);
  // The inputs must reach past the first check, or the run shows nothing.
  for (const name of [
    "requests frames",
    "responses frames",
    "hello connected",
    "echo echo",
    "server served",
    "link open",
  ]) {
    assert.ok((outcomes.get(name) ?? 0) > 5, name);
  }
});
