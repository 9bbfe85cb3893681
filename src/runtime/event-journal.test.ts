import assert from "node:assert/strict";
import { appendFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { eventLimits, silentLog } from "../base/index.ts";
import { type Disk, systemDisk } from "../store/index.ts";
import { EventJournal } from "./event-journal.ts";
import type { EventsOptions, RuntimeEvent } from "./interface.ts";

async function open(t: TestScope, dir: string, disk: Disk = systemDisk): Promise<EventJournal> {
  const journal = await EventJournal.open({ dir, disk, log: silentLog });
  t.after(() => journal.close());
  return journal;
}

async function numbers(journal: EventJournal, options: EventsOptions = { follow: false }): Promise<number[]> {
  const found: number[] = [];
  for await (const { number } of journal.watch(options)) found.push(number);
  return found;
}

function add(journal: EventJournal, count: number): void {
  for (let each = 0; each < count; each += 1) journal.add("a1", "web", { kind: "state", atMs: each, state: "running" });
}

test("events are replayed from a number on, also by the next owner, whose numbers go on", async (t) => {
  const dir = await tempDir(t);
  const first = await open(t, dir);
  first.add("a1", "web", { kind: "created", atMs: 1, image: "busybox" });
  first.add("a1", "web", { kind: "container", atMs: 2, containerId: "c", state: "running" });
  first.add("a1", "web", { kind: "failed", atMs: 3, part: "agent", message: "m" });
  first.add("a1", "web", { kind: "renamed", atMs: 4, oldName: "web" });
  await first.close();
  const second = await open(t, dir);
  second.add("a1", "shop", { kind: "deleted", atMs: 5 });
  const seen: RuntimeEvent[] = [];
  for await (const event of second.watch({ after: 2 })) {
    seen.push(event);
    if (event.number === 5) break;
  }
  assert.deepEqual(seen, [
    { kind: "failed", atMs: 3, part: "agent", message: "m", number: 3, sandboxId: "a1", sandboxName: "web" },
    { kind: "renamed", atMs: 4, oldName: "web", number: 4, sandboxId: "a1", sandboxName: "web" },
    { kind: "deleted", atMs: 5, number: 5, sandboxId: "a1", sandboxName: "shop" },
  ]);
  assert.deepEqual(await numbers(second), [1, 2, 3, 4, 5]);
  assert.throws(() => second.watch({ after: 6 }), { reason: "INVALID_ARGUMENT", message: /the last one is 5/ });
});

test("a watcher sees what happens from its call on, and ends with its signal or the journal", async (t) => {
  const journal = await open(t, await tempDir(t));
  add(journal, 2);
  let begin = -1;
  const watching = numbers(journal, {
    onBegin: (after) => {
      begin = after;
    },
  });
  const controller = new AbortController();
  const given = numbers(journal, { signal: controller.signal });
  add(journal, 2);
  controller.abort();
  await assert.rejects(given, { reason: "CANCELLED" });
  await journal.close();
  assert.deepEqual([begin, await watching], [2, [3, 4]]);
  add(journal, 1);
});

test("a line that a killed owner left half written is passed over", async (t) => {
  const dir = await tempDir(t);
  const first = await open(t, dir);
  add(first, 2);
  await first.close();
  await appendFile(join(dir, "events"), '\n{"number":3,"sandbox');
  const second = await open(t, dir);
  add(second, 1);
  await second.close();
  assert.deepEqual(await numbers(await open(t, dir)), [1, 2, 3]);
});

test("garbage in place of the journal is left out, and the journal begins anew", async (t) => {
  const dir = await tempDir(t);
  await writeFile(join(dir, "events"), `\0\0\n{"number":-1}\n[]\n${"x".repeat(1000)}\n{"number":7,"kind":"none"}`);
  const journal = await open(t, dir);
  add(journal, 1);
  assert.deepEqual(await numbers(journal), [1]);
});

test("what a full disk did not take is written with the next event", async (t) => {
  const dir = await tempDir(t);
  let isFull = true;
  const disk: Disk = {
    ...systemDisk,
    create: async (path, mode) => {
      if (isFull) throw Object.assign(new Error("no space"), { code: "ENOSPC" });
      return await systemDisk.create(path, mode);
    },
  };
  const journal = await open(t, dir, disk);
  add(journal, 2);
  assert.deepEqual(await numbers(journal), [1, 2]);
  isFull = false;
  add(journal, 1);
  await journal.close();
  assert.deepEqual(await numbers(await open(t, dir)), [1, 2, 3]);
});

test("two files keep the latest events, and no more", async (t) => {
  const dir = await tempDir(t);
  const journal = await open(t, dir);
  // One piece of work each, as sandboxes do it.
  for (let round = 0; round < 5; round += 1) {
    add(journal, eventLimits.keptMax / 2);
    await numbers(journal);
  }
  const found = await numbers(journal);
  await journal.close();
  assert.deepEqual([found.length, found.at(-1)], [eventLimits.keptMax, eventLimits.keptMax * 2.5]);
  assert.deepEqual(await numbers(await open(t, dir)), found);
  const old = (await readFile(join(dir, "events.old"), "utf8")).split("\n").length - 1;
  assert.equal(old <= eventLimits.keptMax * 1.5, true, `${old} lines`);
});
