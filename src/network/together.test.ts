import assert from "node:assert/strict";
import { test } from "../../test/support/harness.ts";
import { Turns } from "../store/index.ts";
import { Together } from "./together.ts";

interface Done {
  readonly items: readonly string[];
  readonly again: boolean;
}

test("what is asked for while some is under way is done together, in turn with other work", async () => {
  const turns = new Turns("the test");
  const done: Done[] = [];
  const first = Promise.withResolvers<void>();
  const together = new Together<string>(turns, async (items, again) => {
    done.push({ items, again });
    await first.promise;
  });
  const all = ["a", "b", "c"].map((item) => together.add(item));
  // Nothing has begun before this one was asked for, so all three are in one.
  const other = turns.take(async () => void done.push({ items: ["other"], again: false }));
  await Promise.resolve();
  first.resolve();
  await Promise.all([...all, other]);
  await together.add("d");
  assert.deepEqual(
    done.map(({ items }) => items.join("")),
    ["abc", "other", "d"],
  );
  assert.equal(
    done.some(({ again }) => again),
    false,
  );
});

test("where several fail together each is done once more by itself, and only those whose own it is are told", async () => {
  const done: Done[] = [];
  const together = new Together<string>(new Turns("the test"), async (items, again) => {
    done.push({ items, again });
    if (items.includes("bad")) throw new Error("bad");
  });
  const results = await Promise.allSettled(["a", "bad", "c"].map((item) => together.add(item)));
  assert.deepEqual(
    results.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled"],
  );
  assert.deepEqual(done, [
    { items: ["a", "bad", "c"], again: false },
    { items: ["a"], again: true },
    { items: ["bad"], again: true },
    { items: ["c"], again: true },
  ]);
  await assert.rejects(together.add("bad"), { message: "bad" });
  assert.deepEqual(done.at(-1), { items: ["bad"], again: false });
  await together.add("e");
});
