import assert from "node:assert/strict";
import { setImmediate as soon } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { test } from "../../test/support/harness.ts";
import { Ending } from "./ending.ts";

test("an end: work comes out as it would, fails with an end that comes first, and begins in vain afterwards", async () => {
  const ending = new Ending();
  assert.equal(await ending.during(Promise.resolve(1)), 1);
  await assert.rejects(ending.during(Promise.reject(new Error("its own"))), /its own/);
  const { promise, reject } = Promise.withResolvers<number>();
  const waiting = ending.during(promise);
  ending.end(new Error("the end"));
  ending.end(new Error("another"));
  await assert.rejects(waiting, /the end/);
  reject(new Error("too late for anybody"));
  await assert.rejects(ending.during(Promise.resolve(2)), /the end/);
});

test("an end: nothing is kept of work that is over", async () => {
  const ending = new Ending();
  const kept: WeakRef<object>[] = [];
  for (let count = 0; count < 100; count += 1) {
    const result = { bytes: new Uint8Array(1024) };
    kept.push(new WeakRef(result));
    await ending.during(Promise.resolve(result));
  }
  await soon();
  setFlagsFromString("--expose-gc");
  const gc: unknown = runInNewContext("gc");
  assert.ok(typeof gc === "function");
  gc();
  await soon();
  gc();
  const alive = kept.filter((each) => each.deref() !== undefined).length;
  // The last one may still be on the stack.
  assert.ok(alive <= 1, `${alive} of 100 are kept`);
  ending.end(new Error("the end"));
});
