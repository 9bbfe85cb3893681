import assert from "node:assert/strict";
import { fuzzApi } from "../../fuzz/api.ts";
import { test } from "../support/harness.ts";

test("whatever is sent to the API is answered, and the daemon neither dies, hangs nor grows", async () => {
  const { answers } = await fuzzApi(1, 4_000);
  // Both what is refused and what is done is among them.
  for (const answer of ["200", "invalid_argument", "not_found"]) assert.ok((answers.get(answer) ?? 0) > 0, answer);
});
