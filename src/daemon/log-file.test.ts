import assert from "node:assert/strict";
import { closeSync, openSync, writeSync } from "node:fs";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "../../test/support/harness.ts";
import { LogFile } from "./log-file.ts";

const MAX_BYTES = 1_000;
const line = (number: number): string => `${String(number).padStart(9, "0")}\n`;

test("a log that grows is put aside while it is written; every line is in one of the two files, in order", async (t) => {
  const path = join(t.dir, "log");
  const fd = openSync(path, "a");
  t.after(() => closeSync(fd));
  const log = new LogFile({ path, append: (text) => void writeSync(fd, text), maxBytes: MAX_BYTES });
  // One line more than fits, and what comes while it is put aside.
  for (let number = 0; number < 150; number += 1) log.write(line(number));
  await log.settle();
  const [old, now] = await Promise.all([readFile(`${path}.old`, "utf8"), readFile(path, "utf8")]);
  assert.ok(old.length > MAX_BYTES && old.length <= MAX_BYTES + 10, `${old.length} bytes`);
  assert.equal(old + now, Array.from({ length: 150 }, (_, number) => line(number)).join(""));
  assert.ok(!(await readdir(t.dir)).includes("log.old.new"));
});

test("a log that cannot be put aside goes on where it is, and says why", async (t) => {
  const path = join(t.dir, "log");
  await mkdir(`${path}.old/in-the-way`, { recursive: true });
  const fd = openSync(path, "a");
  t.after(() => closeSync(fd));
  const log = new LogFile({ path, append: (text) => void writeSync(fd, text), maxBytes: MAX_BYTES });
  for (let number = 0; number < 120; number += 1) log.write(line(number));
  await log.settle();
  const text = await readFile(path, "utf8");
  assert.match(text, /the log was not put aside: .*(EISDIR|ENOTEMPTY)/);
  for (let number = 0; number < 120; number += 1) assert.ok(text.includes(line(number)));
  assert.ok(!(await readdir(t.dir)).includes("log.old.new"));
});
