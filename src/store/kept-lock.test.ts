import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { KeptLock } from "./kept-lock.ts";
import { acquireLock, type FileLock } from "./lock.ts";

const KEEP_MS = 50;

async function world(t: TestContext): Promise<{ kept: KeptLock; take: () => Promise<FileLock>; taken: () => number }> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-kept-lock-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  let count = 0;
  const take = async (): Promise<FileLock> => {
    count += 1;
    return await acquireLock(join(dir, "lock"), { mode: "exclusive", timeoutMs: 10_000, what: "the thing" });
  };
  return { kept: new KeptLock(KEEP_MS), take, taken: () => count };
}

test("a lock that is used again soon is taken once, and is another's when it has been idle", async (t) => {
  const { kept, take, taken } = await world(t);
  for (let use = 0; use < 3; use += 1) {
    await using _use = await kept.use(take);
  }
  assert.equal(taken(), 1);
  {
    await using _other = await take();
    const again = kept.use(take);
    let isMine = false;
    void again.then(() => {
      isMine = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 2 * KEEP_MS));
    assert.equal(isMine, false);
    await _other.release();
    await using _use = await again;
  }
  assert.equal(taken(), 3);
  await kept.close();
});

test("a lock that is used is nobody else's, however long it takes", async (t) => {
  const { kept, take } = await world(t);
  let isOthers = false;
  const use = await kept.use(take);
  const other = take().then((lock) => {
    isOthers = true;
    return lock;
  });
  await new Promise((resolve) => setTimeout(resolve, 4 * KEEP_MS));
  assert.equal(isOthers, false);
  await use[Symbol.asyncDispose]();
  await (await other).release();
});

test("once closed nothing is kept; a use that is under way ends first", async (t) => {
  const { kept, take, taken } = await world(t);
  const use = await kept.use(take);
  await kept.close();
  let isFree = false;
  const other = take().then((lock) => {
    isFree = true;
    return lock;
  });
  await new Promise((resolve) => setTimeout(resolve, KEEP_MS));
  assert.equal(isFree, false);
  await use[Symbol.asyncDispose]();
  await (await other).release();
  {
    await using _use = await kept.use(take);
  }
  await (await take()).release();
  assert.equal(taken(), 4);
  // What could not be taken is not kept.
  await assert.rejects(
    kept.use(async () => await Promise.reject(new Error("no"))),
    /no/,
  );
});
