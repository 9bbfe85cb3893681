/** State files on the system's own disk; power loss and failing disks are in test/fault/. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { messageChain, storeLimits } from "../base/index.ts";
import { encodeEnvelope } from "./envelope.ts";
import { StateFile, type StateSchema } from "./state-file.ts";

interface Item {
  readonly name: string;
  readonly count: number;
}

const schema: StateSchema<Item> = {
  kind: "item",
  migrations: [],
  decode: (field) => ({ name: field.field("name").string(), count: field.field("count").integer({ min: 0 }) }),
};

let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "belljar-state-"));
  path = join(directory, "item.json");
});

afterEach(() => rm(directory, { recursive: true }));

describe("state file", () => {
  it("writes, reads, replaces and removes, private to its owner", async () => {
    const file = new StateFile(path, schema);
    assert.deepEqual(await file.write({ name: "a", count: 1 }), { name: "a", count: 1 });
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.deepEqual(await new StateFile(path, schema).read(), { name: "a", count: 1 });
    await file.update((item) => ({ ...item, count: item.count + 1 }));
    const other = new StateFile(path, schema);
    assert.deepEqual(await other.read(), { name: "a", count: 2 });
    assert.deepEqual([other.value, other.sequence], [{ name: "a", count: 2 }, 2]);
    await file.remove();
    await file.remove();
    assert.deepEqual([file.value, file.sequence], [undefined, 0]);
    assert.deepEqual(await readdir(directory), []);
  });

  it("tells absence, damage and a newer version apart, and leaves the file as it is", async () => {
    const newer = encodeEnvelope({ kind: "item", version: 2, sequence: 1 }, { other: true });
    const otherKind = encodeEnvelope({ kind: "lamp", version: 1, sequence: 1 }, { name: "a", count: 1 });
    const wrongBody = encodeEnvelope({ kind: "item", version: 1, sequence: 1 }, { name: "a", count: "1" });
    const cases = [
      [newer, "STATE_VERSION"],
      [otherKind, "STATE_CORRUPT"],
      [wrongBody, "STATE_CORRUPT"],
      [Buffer.alloc(0), "STATE_CORRUPT"],
      [Buffer.from("{}"), "STATE_CORRUPT"],
    ] as const;
    for (const [bytes, reason] of cases) {
      await writeFile(path, bytes);
      const file = new StateFile(path, schema);
      await assert.rejects(file.read(), { reason });
      await assert.rejects(file.write({ name: "b", count: 2 }), { reason });
      await assert.rejects(
        file.update((item) => item),
        { reason },
      );
      assert.deepEqual(await readFile(path), Buffer.from(bytes));
    }
    await rm(path);
    await assert.rejects(new StateFile(path, schema).read(), { reason: "STATE_MISSING" });
    await assert.rejects(
      new StateFile(path, schema).update((item) => item),
      { reason: "STATE_MISSING" },
    );
    await assert.rejects(new StateFile(join(directory, "no", "x"), schema).read(), { reason: "STATE_MISSING" });
    assert.deepEqual(await readdir(directory), []);
  });

  it("refuses a directory, a link and a file of impossible size without reading it", async () => {
    await mkdir(join(directory, "folder"));
    await symlink("/etc/passwd", join(directory, "link"));
    await writeFile(join(directory, "huge"), "");
    await truncate(join(directory, "huge"), storeLimits.stateFileMaxBytes + 1);
    for (const name of ["folder", "link", "huge"]) {
      await assert.rejects(new StateFile(join(directory, name), schema).read(), { reason: "STATE_CORRUPT" }, name);
    }
  });

  it("runs writers one after the other, in the order of their calls", async () => {
    const file = new StateFile(path, schema);
    const writes = [file.write({ name: "a", count: 0 })];
    for (let index = 0; index < 50; index += 1) {
      writes.push(file.update((item) => ({ name: `${item.name}${index % 10}`, count: item.count + 1 })));
    }
    const results = await Promise.all(writes);
    assert.deepEqual(
      results.map((item) => item.count),
      Array.from({ length: 51 }, (_, index) => index),
    );
    assert.deepEqual(await new StateFile(path, schema).read(), { name: `a${"0123456789".repeat(5)}`, count: 50 });
    assert.equal(file.sequence, 51);
  });

  it("goes on after a change that threw, and keeps the state", async () => {
    const file = new StateFile(path, schema);
    await file.write({ name: "a", count: 1 });
    const failing = file.update(() => {
      throw new RangeError("no");
    });
    const next = file.update((item) => ({ ...item, count: 5 }));
    await assert.rejects(failing, RangeError);
    assert.equal((await next).count, 5);
  });

  it("writes nothing that its decoder refuses, loses or changes", async () => {
    const file = new StateFile(path, schema);
    await file.write({ name: "a", count: 1 });
    const forgetful: StateSchema<Item> = { ...schema, decode: (field) => ({ ...schema.decode(field), count: 0 }) };
    for (const attempt of [
      () => file.write({ name: "a", count: -1 }),
      () => new StateFile(path, forgetful).write({ name: "a", count: 7 }),
      () => file.write({ name: "x".repeat(storeLimits.stateFileMaxBytes), count: 1 }),
    ]) {
      await assert.rejects(attempt(), { reason: "INTERNAL", message: /could not be read back/ });
    }
    assert.deepEqual([await file.read(), file.sequence], [{ name: "a", count: 1 }, 1]);
  });

  it("keeps its own copy: what the caller changes later does not count", async () => {
    const file = new StateFile(path, schema);
    const mine = { name: "a", count: 1 };
    await file.write(mine);
    mine.count = 2;
    assert.equal(file.value?.count, 1);
  });

  it("names the file and the field in its chain of causes", async () => {
    await writeFile(path, encodeEnvelope({ kind: "item", version: 1, sequence: 1 }, { name: "a", count: "x" }));
    await assert.rejects(new StateFile(path, schema).read(), (error: unknown) => {
      assert.deepEqual(messageChain(error), [
        `${path} is damaged: its content is not a valid state`,
        'item.count: expected an integer, found "x"',
      ]);
      return true;
    });
  });
});
