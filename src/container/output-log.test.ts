/** The log on real files: order, rotation, torn and damaged files, readers of every kind. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { seededRandom } from "../../test/support/random.ts";
import { logLimits } from "../base/index.ts";
import { OutputCursor } from "./output-cursor.ts";
import { type OutputHistoryOptions, type ReadableLog, readOutputHistory } from "./output-history.ts";
import { OutputLog, type OutputLogOptions } from "./output-log.ts";
import { encodeRecord, type StreamNumber } from "./output-log-format.ts";

async function logDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "log-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return join(dir, "logs");
}

async function openLog(t: TestContext, options: OutputLogOptions): Promise<OutputLog> {
  const log = await OutputLog.open(options);
  t.after(() => log.close());
  return log;
}

let timeMs = 1_000;

async function write(log: OutputLog, stream: StreamNumber, text: string, gap = 0n): Promise<void> {
  timeMs += 1;
  await log.append({ stream, timeMs, offset: log.end(stream) + gap, data: Buffer.from(text, "latin1") });
}

/** All that is there of a stream, with `[N]` where N bytes are missing. */
async function readAll(log: OutputLog, stream: StreamNumber, maxBytes = 7): Promise<string> {
  const cursor = new OutputCursor(log, { stream });
  let text = "";
  for (;;) {
    const before = cursor.offset;
    const piece = await cursor.read({ maxBytes, waitMs: 0 });
    assert.ok(piece.data.length <= maxBytes);
    if (piece.offset > before) text += `[${piece.offset - before}]`;
    text += piece.data.toString("latin1");
    if (piece.end) return `${text}.`;
    if (piece.data.length === 0) return text;
  }
}

async function history(log: ReadableLog, options: OutputHistoryOptions = {}): Promise<string[]> {
  const records: string[] = [];
  for await (const { stream, data, lostBytes } of readOutputHistory(log, options)) {
    records.push(`${stream}${lostBytes > 0n ? `[${lostBytes}]` : ""} ${data.toString("latin1")}`);
  }
  return records;
}

test("two streams keep their order, their offsets and their ends, also over a reopening", async (t) => {
  const dir = await logDir(t);
  const first = await openLog(t, { dir });
  await write(first, 1, "one\n");
  await write(first, 2, "bad\n");
  await write(first, 1, "two\n", 3n);
  await first.finish(2, 2_000);
  await first.finish(2, 2_000);
  await first.close();
  const log = await openLog(t, { dir });
  assert.deepEqual([log.end(1), log.ended(1), log.end(2), log.ended(2)], [11n, false, 4n, true]);
  await write(log, 1, "three\n");
  await log.finish(1, 3_000, 20n);
  assert.equal(await readAll(log, 1), "one\n[3]two\nthree\n[3].");
  assert.equal(await readAll(log, 2), "bad\n.");
  assert.deepEqual(await history(log), ["1 one\n", "2 bad\n", "1[3] two\n", "1 three\n"]);
  await assert.rejects(write(log, 1, "late"), { reason: "INTERNAL" });
  await log.remove();
  assert.equal(await readdir(dir).catch(() => "gone"), "gone");
});

test("it can be read by eye", async (t) => {
  const dir = await logDir(t);
  const log = await openLog(t, { dir });
  await log.append({ stream: 1, timeMs: 1_732_181_234_567, offset: 0n, data: Buffer.from("hello\n") });
  const [name = ""] = await readdir(dir);
  const lines = (await readFile(join(dir, name), "utf8")).split("\n");
  assert.match(name, /^00000001-[0-9a-f]{16}\.log$/);
  assert.match(lines[2] ?? "", /^@[0-9a-f]{16} 1732181234567 1 data 0 6 [0-9a-f]{8}$/);
  assert.deepEqual(lines.slice(3), ["hello", "", ""]);
});

test("pieces larger than a record are divided", async (t) => {
  const log = await openLog(t, { dir: await logDir(t) });
  const data = Buffer.alloc(logLimits.recordMaxBytes * 2 + 5, "x");
  await log.append({ stream: 1, timeMs: 1, offset: 0n, data });
  const pieces: number[] = [];
  for await (const record of readOutputHistory(log)) pieces.push(record.data.length);
  assert.deepEqual(pieces, [logLimits.recordMaxBytes, logLimits.recordMaxBytes, 5]);
});

test("the oldest file falls away; who asks for it is told what is left", async (t) => {
  const dir = await logDir(t);
  const log = await openLog(t, { dir, fileMaxBytes: 600, filesMax: 3 });
  for (let line = 100; line < 160; line += 1) await write(log, line % 10 === 0 ? 2 : 1, `${line}\n`);
  assert.equal((await readdir(dir)).length, 3);
  const text = await readAll(log, 1);
  const [, lost = "", rest = ""] = /^\[(\d+)\]([^[]*)$/.exec(text) ?? [];
  assert.equal(BigInt(lost), log.start(1));
  assert.ok(Number(lost) > 0 && rest.endsWith("158\n159\n"));
  assert.equal(Number(lost) + rest.length, Number(log.end(1)));
  assert.match((await history(log))[0] ?? "", /^[12]\[\d+\] /);
  // The last file alone tells the next owner where each stream stands, though stream 2 may not be in it.
  await log.close();
  const next = await openLog(t, { dir, fileMaxBytes: 600, filesMax: 3 });
  assert.deepEqual([next.end(1), next.end(2), next.start(1)], [log.end(1), log.end(2), log.start(1)]);
  assert.equal(await readAll(next, 1), text);
});

test("a cursor that is overtaken by the files' falling away goes on with what is left", async (t) => {
  const log = await openLog(t, { dir: await logDir(t), fileMaxBytes: 600, filesMax: 2 });
  const cursor = new OutputCursor(log, { stream: 1 });
  await write(log, 1, "first\n");
  assert.equal((await cursor.read({ maxBytes: 3, waitMs: 0 })).data.toString(), "fir");
  for (let line = 100; line < 160; line += 1) await write(log, 1, `${line}\n`);
  const piece = await cursor.read({ maxBytes: 4, waitMs: 0 });
  assert.ok(piece.offset > 3n);
  assert.equal((piece.offset - 6n) % 4n, 0n);
  assert.equal(piece.data.toString(), `${100 + Number(piece.offset - 6n) / 4}\n`);
  const again = await cursor.read({ offset: piece.offset, maxBytes: 4, waitMs: 0 });
  assert.deepEqual(again, piece);
});

test("a cursor waits for more, at most as long as it is told, until its signal fires, or the log is closed", async (t) => {
  const log = await openLog(t, { dir: await logDir(t) });
  const cursor = new OutputCursor(log, { stream: 1 });
  assert.deepEqual(await cursor.read({ maxBytes: 9, waitMs: 5 }), { offset: 0n, data: Buffer.alloc(0), end: false });
  const waiting = cursor.read({ maxBytes: 9, waitMs: 60_000 });
  await write(log, 2, "not this");
  await write(log, 1, "this");
  assert.equal((await waiting).data.toString(), "this");
  const stop = new AbortController();
  const abandoned = cursor.read({ maxBytes: 9, waitMs: 60_000, signal: stop.signal });
  stop.abort();
  await assert.rejects(abandoned, { reason: "CANCELLED" });
  await assert.rejects(cursor.read({ offset: 5n, maxBytes: 9, waitMs: 0 }), { reason: "INVALID_ARGUMENT" });
  const last = cursor.read({ offset: 4n, maxBytes: 9, waitMs: 60_000 });
  await log.finish(1, 1);
  assert.deepEqual(await last, { offset: 4n, data: Buffer.alloc(0), end: true });
  const other = new OutputCursor(log, { stream: 2, offset: 8n }).read({ maxBytes: 9, waitMs: 60_000 });
  await Promise.all([assert.rejects(other, { reason: "CANCELLED" }), log.close()]);
});

test("only an attached cursor that is far behind holds the process up, and only while its lease runs", async (t) => {
  const log = await openLog(t, { dir: await logDir(t) });
  const held = async (): Promise<boolean> => {
    const stop = new AbortController();
    const room = log.room(1, stop.signal).then(
      () => false,
      () => true,
    );
    stop.abort();
    return await room;
  };
  const loose = new OutputCursor(log, { stream: 1 });
  const cursor = new OutputCursor(log, { stream: 1, attached: true });
  const other = new OutputCursor(log, { stream: 2, attached: true });
  await log.append({ stream: 1, timeMs: 1, offset: 0n, data: Buffer.alloc(logLimits.attachedLagMaxBytes) });
  assert.equal(await held(), false);
  await write(log, 1, "x");
  assert.equal(await held(), true);
  const room = log.room(1, new AbortController().signal);
  await cursor.read({ maxBytes: 1, waitMs: 0 });
  await room;
  await write(log, 1, "x");
  assert.equal(await held(), true);
  cursor.detach();
  assert.equal(await held(), false);
  const leased = new OutputCursor(log, { stream: 1, attached: true, leaseMs: 1 });
  const until = performance.now() + 2;
  while (performance.now() < until) await new Promise(setImmediate);
  assert.equal(await held(), false);
  for (const each of [leased, other, loose]) each.detach();
});

test("the last lines, and what was written since", async (t) => {
  const log = await openLog(t, { dir: await logDir(t), fileMaxBytes: 700 });
  await write(log, 1, "a1\na2\na");
  await write(log, 2, "b1\n");
  const sinceMs = timeMs + 1;
  await write(log, 1, "3\na4\n");
  await write(log, 2, "b");
  await write(log, 2, "2");
  assert.deepEqual(await history(log, { tailLines: 0 }), []);
  assert.deepEqual(await history(log, { tailLines: 1 }), ["2 b", "2 2"]);
  assert.deepEqual(await history(log, { tailLines: 3 }), ["1 a", "1 3\na4\n", "2 b", "2 2"]);
  assert.deepEqual(await history(log, { tailLines: 4 }), ["1 a", "2 b1\n", "1 3\na4\n", "2 b", "2 2"]);
  assert.deepEqual(await history(log, { tailLines: 99 }), ["1 a1\na2\na", "2 b1\n", "1 3\na4\n", "2 b", "2 2"]);
  assert.deepEqual(await history(log, { sinceMs }), ["1 3\na4\n", "2 b", "2 2"]);
  assert.deepEqual(await history(log, { sinceMs, tailLines: 2 }), ["1 a4\n", "2 b", "2 2"]);
});

test("what is written while the last lines are looked for is not one of them, unless somebody follows", async (t) => {
  const log = await openLog(t, { dir: await logDir(t) });
  for (const text of ["a\n", "b\n", "c\n"]) await write(log, 1, text);
  const early = log.end(1);
  await write(log, 1, "d\n");
  await log.finish(1, 2_000);
  await log.finish(2, 2_000);
  /** As who began to read before the last line was written sees it: asked first, it says how much there was. */
  const begunBefore = (): ReadableLog => {
    let isFirst = true;
    return {
      closed: log.closed,
      end: (stream) => {
        const said = stream === 1 && isFirst ? early : log.end(stream);
        if (stream === 2) isFirst = false;
        return said;
      },
      ended: (stream) => log.ended(stream),
      fileFrom: (sequence) => log.fileFrom(sequence),
      waitForChange: (waitMs, signal) => log.waitForChange(waitMs, signal),
    };
  };
  assert.deepEqual(await history(begunBefore(), { tailLines: 2 }), ["1 b\n", "1 c\n"]);
  assert.deepEqual(await history(begunBefore(), { tailLines: 2, follow: true }), ["1 b\n", "1 c\n", "1 d\n"]);
  assert.deepEqual(await history(log, { tailLines: 2 }), ["1 c\n", "1 d\n"]);
});

test("who follows gets everything until all streams have ended", async (t) => {
  const log = await openLog(t, { dir: await logDir(t), fileMaxBytes: 500 });
  await write(log, 1, "0\n");
  const following = history(log, { follow: true });
  const expected = ["1 0\n"];
  for (let line = 1; line < 40; line += 1) {
    const stream = line % 3 === 0 ? 2 : 1;
    await write(log, stream, `${line}\n`);
    expected.push(`${stream} ${line}\n`);
    if (line % 5 === 0) await new Promise(setImmediate);
  }
  await log.finish(1, 1);
  await log.finish(2, 1);
  // Files may have fallen away before they were read; whoever follows closely loses nothing.
  const got = await following;
  assert.deepEqual(got.slice(-5), expected.slice(-5));
  const lost = got.filter((record) => record.includes("["));
  if (lost.length === 0) assert.deepEqual(got, expected);
});

test("a torn end is cut off, whatever its length, and writing goes on at the last whole record", async (t) => {
  const dir = await logDir(t);
  const whole = await openLog(t, { dir });
  await write(whole, 1, "kept\n");
  const [name = ""] = await readdir(dir);
  const before = await readFile(join(dir, name));
  await write(whole, 1, "torn\n");
  const after = await readFile(join(dir, name));
  await whole.close();
  for (let size = before.length; size < after.length; size += 1) {
    await writeFile(join(dir, name), after.subarray(0, size));
    const log = await OutputLog.open({ dir });
    assert.equal(log.end(1), 5n, `torn at ${size}`);
    await write(log, 1, "next\n");
    assert.equal(await readAll(log, 1), "kept\nnext\n");
    await log.close();
  }
});

test("a file that was torn when it began is understood by the one before it", async (t) => {
  const dir = await logDir(t);
  const log = await openLog(t, { dir, fileMaxBytes: 400 });
  for (let line = 0; line < 4; line += 1) await write(log, line % 2 === 0 ? 1 : 2, `line ${line}\n`);
  await log.close();
  await writeFile(join(dir, "00000009-0123456789abcdef.log"), "@0123456789abcdef 1 1 sta");
  const next = await openLog(t, { dir });
  assert.deepEqual([next.end(1), next.end(2)], [14n, 14n]);
  await write(next, 1, "more\n");
  assert.equal(await readAll(next, 1), "line 0\nline 2\nmore\n");
});

test("damage in the middle costs the records that it hits; nothing that a guest writes is taken for a record", async (t) => {
  const dir = await logDir(t);
  const first = await openLog(t, { dir });
  await write(first, 1, "one\n");
  await write(first, 1, "two\n");
  const forged = encodeRecord("0".repeat(16), {
    timeMs: 1,
    stream: 1,
    kind: "data",
    offset: 3n,
    data: Buffer.from("no"),
  });
  await write(first, 1, `\n${forged.toString("latin1")}`);
  await write(first, 1, "end\n");
  await first.close();
  const [name = ""] = await readdir(dir);
  const bytes = await readFile(join(dir, name));
  const at = bytes.indexOf("two");
  bytes[at] = 0;
  bytes[bytes.indexOf("no\n")] = 0;
  await writeFile(join(dir, name), bytes);
  const log = await openLog(t, { dir });
  assert.equal(await readAll(log, 1, 1_000), `one\n[${4 + 1 + forged.length}]end\n`);
});

test("whatever becomes of the files, opening and reading end well and show only what was written", async (t) => {
  const dir = await logDir(t);
  const random = seededRandom(11);
  let texts = ["", ""];
  for (let round = 0; round < 300; round += 1) {
    await rm(dir, { recursive: true, force: true });
    const options = { dir, fileMaxBytes: 500, filesMax: 3 };
    const first = await OutputLog.open(options);
    texts = ["", ""];
    for (let count = 0; count < 20; count += 1) {
      const stream = random.pick<StreamNumber>([1, 2]);
      const text = String.fromCharCode(
        97 + random.below(26),
        ...Array.from({ length: random.below(40) }, () => random.below(256)),
      );
      await write(first, stream, text);
      texts[stream - 1] += text;
    }
    await first.close();
    for (const name of await readdir(dir)) {
      let bytes = await readFile(join(dir, name));
      for (let hits = random.below(3); hits > 0 && bytes.length > 0; hits -= 1) {
        const at = random.below(bytes.length);
        const kind = random.below(3);
        if (kind === 0) bytes[at] = random.below(256);
        else if (kind === 1) bytes = bytes.subarray(0, at);
        else bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(random.below(bytes.length))]);
      }
      await writeFile(join(dir, name), bytes);
    }
    const log = await OutputLog.open(options);
    for (const stream of [1, 2] as const) {
      const text = texts[stream - 1] ?? "";
      const cursor = new OutputCursor(log, { stream });
      for (;;) {
        const { offset, data } = await cursor.read({ maxBytes: 30, waitMs: 0 });
        if (data.length === 0) break;
        const from = Number(offset);
        assert.equal(data.toString("latin1"), text.slice(from, from + data.length), `round ${round}`);
      }
      assert.ok(log.end(stream) <= BigInt(text.length));
      await write(log, stream, "more");
    }
    await history(log, { tailLines: random.below(10) });
    await log.close();
  }
});
