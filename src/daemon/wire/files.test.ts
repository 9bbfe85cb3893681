import assert from "node:assert/strict";
import { test } from "../../../test/support/harness.ts";
import { fromBytes } from "./files.ts";

test("a place in a file is a number of bytes, whatever the wire can carry", async () => {
  for (const value of [0, 1, 2 ** 40, Number.MAX_SAFE_INTEGER]) assert.equal(fromBytes("an offset", value), value);
  for (const value of [-1, 1.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    assert.throws(() => fromBytes("an offset", value), {
      reason: "INVALID_ARGUMENT",
      message: /an offset of .* is no number/,
    });
  }
});
