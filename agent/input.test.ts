/** Input is taken in order, once, and no more of it than there is room for. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { streamLimits } from "../src/base/limits.ts";
import { Input, type InputState } from "./input.ts";

class Target {
  text = "";
  bytes = 0;
  ended = false;
  readonly #pending: (() => void)[] = [];
  write(bytes: Uint8Array, written: () => void): void {
    this.bytes += bytes.length;
    if (bytes.length < 100) this.text += Buffer.from(bytes).toString();
    this.#pending.push(written);
  }
  end(): void {
    this.ended = true;
  }
  drain(): void {
    for (const written of this.#pending.splice(0)) written();
  }
}

const { signal } = new AbortController();

function write(input: Input, offset: number, text: string | Buffer, end = false, waitMs = 1_000): Promise<InputState> {
  return input.write({ offset, data: Buffer.from(text), end, waitMs }, signal);
}

test("repeated and overlapping pieces are taken once, and the end is the end", async () => {
  const target = new Target();
  const input = new Input(target);
  assert.deepEqual(await write(input, 0, "abc"), { accepted: 3, closed: false });
  assert.deepEqual(await write(input, 0, "abc"), { accepted: 3, closed: false });
  assert.deepEqual(await write(input, 1, "bcde"), { accepted: 5, closed: false });
  assert.deepEqual(await write(input, 5, "f", true), { accepted: 6, closed: false });
  assert.deepEqual(await write(input, 6, "more"), { accepted: 6, closed: false });
  assert.equal(target.text, "abcdef");
  assert.equal(target.ended, true);
});

test("a piece that comes too early waits for the one before it", async () => {
  const target = new Target();
  const input = new Input(target);
  const late = write(input, 3, "def");
  assert.equal((await write(input, 0, "abc")).accepted, 3);
  assert.equal((await late).accepted, 6);
  assert.equal(target.text, "abcdef");
  assert.equal((await write(input, 100, "x", false, 1)).accepted, 6);
});

test("what does not fit waits until the process has read", async () => {
  const target = new Target();
  const input = new Input(target);
  const size = streamLimits.inputBufferBytes;
  assert.equal((await write(input, 0, Buffer.alloc(size))).accepted, size);
  assert.equal((await write(input, size, "x", false, 1)).accepted, size);
  const waiting = write(input, size, "x");
  target.drain();
  assert.equal((await waiting).accepted, size + 1);
  assert.equal(target.bytes, size + 1);
});

test("a process that reads no more answers everybody", async () => {
  const input = new Input(new Target());
  const waiting = write(input, 5, "x");
  input.close();
  assert.deepEqual(await waiting, { accepted: 0, closed: true });
  assert.deepEqual(await write(new Input(undefined), 0, "x"), { accepted: 0, closed: true });
});
