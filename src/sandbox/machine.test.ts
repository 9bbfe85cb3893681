import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import { test } from "../../test/support/harness.ts";
import { abortable } from "./machine.ts";

test("a wait that is over before it begins leaves no failure unheard", async () => {
  const { promise, reject } = Promise.withResolvers<never>();
  await assert.rejects(abortable(promise, AbortSignal.abort()), { reason: "CANCELLED" });
  reject(new Error("much later"));
  // Node ends the process, and the test runner the test, for a rejection that nobody hears of.
  await nextTurn();
});
