import assert from "node:assert/strict";
import { setImmediate as soon } from "node:timers/promises";
import { test } from "../../test/support/harness.ts";
import { Places } from "./places.ts";

const LONG_MS = 60_000;
const never = new AbortController().signal;

test("places: so many at once, the others in the order in which they came", async () => {
  const places = new Places(2);
  const inside: number[] = [];
  const enter = async (number: number): Promise<Disposable> => {
    const place = await places.take(LONG_MS, never);
    inside.push(number);
    return place;
  };
  const [first, second, third, fourth] = [enter(1), enter(2), enter(3), enter(4)];
  await soon();
  assert.deepEqual(inside, [1, 2]);
  (await second)[Symbol.dispose]();
  (await second)[Symbol.dispose]();
  await soon();
  assert.deepEqual(inside, [1, 2, 3]);
  (await first)[Symbol.dispose]();
  await soon();
  assert.deepEqual(inside, [1, 2, 3, 4]);
  for (const place of [await third, await fourth]) place[Symbol.dispose]();
  (await places.take(LONG_MS, never))[Symbol.dispose]();
});

test("places: who takes too long goes on without one; who gives up waiting takes none", async () => {
  const places = new Places(1);
  const slow = await places.take(5, never);
  (await places.take(LONG_MS, never))[Symbol.dispose]();
  slow[Symbol.dispose]();

  using held = await places.take(LONG_MS, never);
  const giving = new AbortController();
  const given = places.take(LONG_MS, giving.signal);
  const next = places.take(LONG_MS, never);
  giving.abort();
  await assert.rejects(given, { reason: "CANCELLED" });
  await assert.rejects(places.take(LONG_MS, giving.signal), { reason: "CANCELLED" });
  held[Symbol.dispose]();
  using other = await next;
  // Handed over and given up in the same moment: whoever got it has it.
  const late = new AbortController();
  const handed = places.take(LONG_MS, late.signal);
  other[Symbol.dispose]();
  late.abort();
  (await handed)[Symbol.dispose]();
  (await places.take(LONG_MS, never))[Symbol.dispose]();
});
