/** Who is held up and what is lost when nobody, one or two read. */
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { streamLimits } from "../src/base/limits.ts";
import type { CallContext } from "./methods.ts";
import { Output, type OutputChunk, type OutputRead, SOURCE_CHUNK_BYTES } from "./output.ts";

function source(): { paused: boolean; pause(): void; resume(): void } {
  return {
    paused: false,
    pause() {
      this.paused = true;
    },
    resume() {
      this.paused = false;
    },
  };
}

function context(): CallContext & { readonly controller: AbortController } {
  const controller = new AbortController();
  return { controller, signal: controller.signal, roomToSend: async () => {} };
}

function read(output: Output, request: Partial<OutputRead>, from: CallContext = context()): Promise<OutputChunk> {
  const defaults = { offset: 0, maxBytes: 100, waitMs: 1_000, follow: false, detach: false };
  return output.read({ ...defaults, ...request }, from);
}

const text = (chunk: OutputChunk): string => chunk.data.toString();

test("with a reader attached a full ring holds the process up, and reading lets it go on", async () => {
  const pipe = source();
  const output = new Output(pipe);
  const chunk = Buffer.alloc(SOURCE_CHUNK_BYTES, 1);
  for (let written = 0; written < streamLimits.ringBytes; written += chunk.length) {
    assert.equal(pipe.paused, false);
    output.push(chunk);
  }
  assert.equal(pipe.paused, true);
  const first = await read(output, { maxBytes: SOURCE_CHUNK_BYTES });
  assert.equal(first.data.length, SOURCE_CHUNK_BYTES);
  // Read, but not acknowledged: the answer may get lost.
  assert.equal(pipe.paused, true);
  await read(output, { offset: SOURCE_CHUNK_BYTES, maxBytes: 0 });
  assert.equal(pipe.paused, false);
  output.end();
});

test("what is read on for somebody else stays until that one is said to have it", async () => {
  const pipe = source();
  const output = new Output(pipe);
  for (let written = 0; written < streamLimits.ringBytes; written += SOURCE_CHUNK_BYTES) {
    output.push(Buffer.alloc(SOURCE_CHUNK_BYTES, written / SOURCE_CHUNK_BYTES));
  }
  for (let offset = 0; offset < streamLimits.ringBytes; offset += SOURCE_CHUNK_BYTES) {
    await read(output, { offset, maxBytes: SOURCE_CHUNK_BYTES, acknowledged: 0 });
  }
  assert.equal(pipe.paused, true);
  // The one in between has died; the next begins where the last one was.
  const again = await read(output, { offset: SOURCE_CHUNK_BYTES, maxBytes: 1, acknowledged: SOURCE_CHUNK_BYTES });
  assert.deepEqual([again.offset, [...again.data]], [SOURCE_CHUNK_BYTES, [1]]);
  assert.equal(pipe.paused, false);
  output.end();
});

test("a reader that detaches, or stays away for a lease, holds nobody up", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    for (const leave of [
      async (output: Output) => void (await read(output, { detach: true })),
      async () => mock.timers.tick(streamLimits.readerLeaseMs),
    ]) {
      const pipe = source();
      const output = new Output(pipe);
      output.push(Buffer.alloc(streamLimits.ringBytes, 1));
      assert.equal(pipe.paused, true);
      await leave(output);
      assert.equal(pipe.paused, false);
      output.push(Buffer.from("new"));
      const { offset, data } = await read(output, { offset: 0, maxBytes: streamLimits.ringBytes });
      assert.equal(offset, 3);
      assert.equal(data.length, streamLimits.chunkMaxBytes);
      output.end();
    }
  } finally {
    mock.timers.reset();
  }
});

test("a process whose output nobody ever reads waits for one lease, and never again", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const pipe = source();
    const output = new Output(pipe);
    const chunk = Buffer.alloc(SOURCE_CHUNK_BYTES, 1);
    const write = (): void => {
      for (let written = 0; written < streamLimits.ringBytes; written += chunk.length) output.push(chunk);
    };
    write();
    mock.timers.tick(streamLimits.readerLeaseMs - 1);
    assert.equal(pipe.paused, true);
    mock.timers.tick(1);
    assert.equal(pipe.paused, false);
    for (let round = 0; round < 3; round += 1) {
      write();
      assert.equal(pipe.paused, false);
    }
    // The oldest have fallen out, and whoever comes is told how many.
    const late = await read(output, { maxBytes: 1 });
    assert.equal(late.offset, 3 * streamLimits.ringBytes);
    output.end();
  } finally {
    mock.timers.reset();
  }
});

test("readings that follow are answered in order, each from where the last one ended", async () => {
  const output = new Output(source());
  const answers = [
    read(output, { maxBytes: 3 }),
    read(output, { maxBytes: 3, follow: true }),
    read(output, { maxBytes: 3, follow: true }),
  ];
  output.push(Buffer.from("abcd"));
  assert.equal(text(await (answers[0] as Promise<OutputChunk>)), "abc");
  assert.equal(text(await (answers[1] as Promise<OutputChunk>)), "d");
  output.push(Buffer.from("ef"));
  output.end();
  const last = await (answers[2] as Promise<OutputChunk>);
  assert.deepEqual([text(last), last.offset, last.end], ["ef", 4, true]);
  assert.deepEqual(text(await read(output, { offset: 1 })), "bcdef".slice(0, 5));
});

test("one that is given up makes no gap for those behind it", async () => {
  const output = new Output(source());
  const first = context();
  const abandoned = assert.rejects(read(output, {}, first));
  const second = read(output, { follow: true });
  first.controller.abort(new Error("gone"));
  await abandoned;
  output.push(Buffer.from("abc"));
  assert.equal(text(await second), "abc");
  output.end();
});

test("two readers of one stream each get all of it", async () => {
  const output = new Output(source());
  output.push(Buffer.from("abc"));
  output.end();
  const both = await Promise.all([read(output, {}), read(output, {})]);
  assert.deepEqual(both.map(text), ["abc", "abc"]);
  assert.ok(both.every((chunk) => chunk.end));
});

test("an offset that was never written is refused, and waiting has an end", async () => {
  const output = new Output(source());
  await assert.rejects(read(output, { offset: 1 }), { reason: "INVALID_ARGUMENT" });
  const empty = await read(output, { waitMs: 1 });
  assert.deepEqual([empty.data.length, empty.end], [0, false]);
  output.end();
  assert.equal((await read(output, {})).end, true);
});
