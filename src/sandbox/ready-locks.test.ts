import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { mkdir, readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, test } from "../../test/support/harness.ts";
import { STEP_CHANNEL } from "../base/index.ts";
import { acquireLock } from "../store/index.ts";
import { ReadyLocks } from "./index.ts";
import { unfinishedDir } from "./record.ts";

const ID = "0123456789ab";
const ONCE = { mode: "exclusive", timeoutMs: 0, what: "it" } as const;

/** Children that this process has started since. */
function children(t: TestScope): () => number {
  let count = 0;
  const listen = (): void => {
    count += 1;
  };
  subscribe(STEP_CHANNEL, listen);
  t.after(() => void unsubscribe(STEP_CHANNEL, listen));
  return () => count;
}

test("a lock that is ready costs its sandbox nothing, and keeps others out from the start", async (t) => {
  const locks = new ReadyLocks(t.dir);
  await locks.prepare(ID);
  await assert.rejects(acquireLock(join(unfinishedDir(t.dir, ID), "lock"), ONCE), { reason: "LOCKED" });
  await rename(unfinishedDir(t.dir, ID), join(t.dir, ID));
  const path = join(t.dir, ID, "lock");
  await assert.rejects(locks.acquire(path, { ...ONCE, mode: "shared" }), { reason: "LOCKED" });
  const started = children(t);
  const lock = await locks.acquire(path, ONCE);
  assert.equal(started(), 0);
  await assert.rejects(acquireLock(path, ONCE), { reason: "LOCKED" });
  // It is the sandbox's now, which lets go of it and takes it once more as any other.
  await locks.giveUp(ID);
  await assert.rejects(acquireLock(path, ONCE), { reason: "LOCKED" });
  await lock.release();
  await (await locks.acquire(path, ONCE)).release();
  assert.ok(started() > 0);
});

test("one that is given up leaves nothing, and one that cannot be had is told", async (t) => {
  const dir = join(t.dir, "sandboxes");
  const locks = new ReadyLocks(dir);
  await locks.prepare(ID);
  await locks.giveUp(ID);
  await locks.giveUp(ID);
  assert.deepEqual(await readdir(dir), []);
  await mkdir(join(unfinishedDir(dir, ID), "lock"), { recursive: true });
  await assert.rejects(locks.prepare(ID), { code: "EISDIR" });
  assert.deepEqual(await readdir(dir), []);
});
