/** The journal on the system's own disk; power loss and failing disks are in test/fault/. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { storeLimits } from "../base/index.ts";
import { Journal } from "./journal.ts";

let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "belljar-journal-"));
  path = join(directory, "journal");
});

afterEach(() => rm(directory, { recursive: true }));

describe("journal", () => {
  it("lists for the next process what was begun and not committed, with its facts and steps", async () => {
    const journal = await Journal.open(path);
    assert.deepEqual([journal.unfinished, await readdir(directory)], [[], []]);
    const create = await journal.begin("create", { container: "web", disks: 2 });
    await create.note("disk attached", { node: "d1" });
    const exec = await journal.begin("exec");
    await exec.commit();
    await exec.commit();
    assert.equal((await stat(path)).mode & 0o777, 0o600);

    const next = await Journal.open(path);
    assert.equal(next.unfinished.length, 1);
    const [left] = next.unfinished;
    assert.deepEqual([left?.operation, left?.facts], ["create", { container: "web", disks: 2 }]);
    assert.deepEqual(left?.steps, [{ step: "disk attached", facts: { node: "d1" } }]);
    await left?.note("disk detached");
    await left?.commit();
    assert.deepEqual((await Journal.open(path)).unfinished, []);
  });

  it("keeps intents begun at once apart", async () => {
    const journal = await Journal.open(path);
    const intents = await Promise.all(Array.from({ length: 20 }, (_, index) => journal.begin("exec", { index })));
    await Promise.all(intents.map(async (intent, index) => (index % 2 === 0 ? intent.commit() : intent.note("half"))));
    const { unfinished } = await Journal.open(path);
    assert.deepEqual(
      unfinished.map(({ facts, steps }) => [facts["index"], steps.length]),
      Array.from({ length: 10 }, (_, index) => [2 * index + 1, 1]),
    );
  });

  it("stays small however many operations went through it", async () => {
    const journal = await Journal.open(path);
    const long = "x".repeat(10_000);
    const open = await journal.begin("create", { long });
    for (let index = 0; index < 30; index += 1) await (await journal.begin("exec", { long })).commit();
    assert.ok((await stat(path)).size <= storeLimits.journalCompactBytes + 20_000);
    await open.note("still here");
    const { unfinished } = await Journal.open(path);
    assert.deepEqual(
      unfinished.map(({ operation, steps }) => [operation, steps.length]),
      [["create", 1]],
    );
  });

  it("refuses a note on an operation that was committed", async () => {
    const intent = await (await Journal.open(path)).begin("stop");
    await intent.commit();
    await assert.rejects(intent.note("late"), { reason: "INTERNAL" });
  });

  it("leaves a damaged journal as it is", async () => {
    await writeFile(path, "not a journal\nat all\n");
    await assert.rejects(Journal.open(path), { reason: "STATE_CORRUPT" });
    assert.equal(await readFile(path, "utf8"), "not a journal\nat all\n");
  });
});
