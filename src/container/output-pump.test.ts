/** The pump between a guest in memory, which loses links and keeps only what is not acknowledged, and a log on real files. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { seededRandom } from "../../test/support/random.ts";
import type { AgentCaller, AgentRequest } from "../agent-client/index.ts";
import { BelljarError, logLimits, streamLimits, systemClock } from "../base/index.ts";
import { OutputCursor } from "./output-cursor.ts";
import { OutputLog } from "./output-log.ts";
import type { StreamNumber } from "./output-log-format.ts";
import { OutputPump, type OutputPumpDeps } from "./output-pump.ts";

/** The readOutput of a guest whose process writes as fast as its ring lets it. */
class Guest implements AgentCaller {
  /** What the process writes in all. */
  readonly text: Readonly<Record<StreamNumber, Buffer>>;
  readonly acknowledged: Record<StreamNumber, number> = { 1: 0, 2: 0 };
  /** Bytes before this have fallen out of the ring though nobody had read them. */
  readonly fallen: Record<StreamNumber, number> = { 1: 0, 2: 0 };
  /** The process has written so much; all of it unless a test holds it back. */
  written = Number.POSITIVE_INFINITY;
  /** Thrown by the next call, instead of an answer. */
  failure: BelljarError | undefined;
  onRead: (() => Promise<void>) | undefined;
  readonly #cursor: Record<StreamNumber, number> = { 1: 0, 2: 0 };
  #wake = Promise.withResolvers<void>();

  constructor(out: Buffer, err: Buffer = Buffer.alloc(0)) {
    this.text = { 1: out, 2: err };
  }

  write(bytes: number): void {
    this.written = bytes;
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  call: AgentCaller["call"] = async (method, request, options) => {
    if (method !== "readOutput") throw new BelljarError("INTERNAL", `unexpected ${method}`);
    return (await this.#read(request as AgentRequest<"readOutput">, options?.signal)) as never;
  };

  async #read(request: AgentRequest<"readOutput">, signal: AbortSignal | undefined): Promise<object> {
    const stream = request.stream === 2 ? 2 : 1;
    const offset = Number(request.offset ?? 0n);
    const text = this.text[stream];
    if (this.failure !== undefined) throw this.failure;
    this.acknowledged[stream] = Math.max(this.acknowledged[stream], offset);
    if ((request.maxBytes ?? 0) === 0) return { offset: request.offset, data: Buffer.alloc(0), end: false };
    if (request.follow !== true) this.#cursor[stream] = offset;
    // As much has been written as the ring has room for.
    const there = (): number => Math.min(text.length, this.written, this.acknowledged[stream] + streamLimits.ringBytes);
    while (this.#cursor[stream] >= there() && there() < text.length) {
      signal?.throwIfAborted();
      if (this.failure !== undefined) throw this.failure;
      await Promise.race([this.#wake.promise, new Promise(setImmediate)]);
    }
    await this.onRead?.();
    const from = Math.max(this.#cursor[stream], this.fallen[stream]);
    const data = text.subarray(from, Math.min(there(), from + (request.maxBytes ?? 0)));
    this.#cursor[stream] = from + data.length;
    return { offset: BigInt(from), data, end: from + data.length === text.length };
  }
}

interface Setting {
  readonly guest: Guest;
  readonly dir: string;
  readonly errors: string[];
  open(): Promise<{ log: OutputLog; pump: OutputPump }>;
}

async function setting(t: TestContext, guest: Guest, deps: Partial<OutputPumpDeps> = {}): Promise<Setting> {
  const dir = await mkdtemp(join(tmpdir(), "pump-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const errors: string[] = [];
  const open = async (): Promise<{ log: OutputLog; pump: OutputPump }> => {
    const log = await OutputLog.open({ dir });
    const pump = new OutputPump({
      agent: guest,
      address: { containerId: "c", processId: "" },
      log,
      streams: [1, 2],
      clock: systemClock,
      onError: (error) => errors.push(error.reason),
      ...deps,
    });
    t.after(async () => {
      await pump.stop();
      await log.close();
    });
    return { log, pump };
  };
  return { guest, dir, errors, open };
}

/** Everything of a stream, and how many bytes were missing. */
async function readAll(log: OutputLog, stream: StreamNumber): Promise<{ text: Buffer; lost: number }> {
  const cursor = new OutputCursor(log, { stream });
  const pieces: Buffer[] = [];
  let lost = 0n;
  for (;;) {
    const before = cursor.offset;
    const piece = await cursor.read({ maxBytes: 100_000, waitMs: 0 });
    lost += piece.offset - before;
    pieces.push(piece.data);
    if (piece.end || piece.data.length === 0) return { text: Buffer.concat(pieces), lost: Number(lost) };
  }
}

function noise(bytes: number): Buffer {
  const random = seededRandom(bytes);
  return Buffer.from(Array.from({ length: bytes }, () => random.below(256)));
}

test("everything that a process writes is logged, and its end", async (t) => {
  const guest = new Guest(noise(3 * streamLimits.ringBytes + 17), Buffer.from("some errors\n"));
  const { open, errors } = await setting(t, guest);
  const { log, pump } = await open();
  pump.start();
  pump.start();
  await pump.ended;
  assert.deepEqual([log.ended(1), log.ended(2), errors], [true, true, []]);
  assert.ok((await readAll(log, 1)).text.equals(guest.text[1]));
  assert.equal((await readAll(log, 2)).text.toString(), "some errors\n");
});

test("a byte is acknowledged only when it is in the log", async (t) => {
  const guest = new Guest(noise(2 * streamLimits.ringBytes));
  const { open } = await setting(t, guest);
  const { log, pump } = await open();
  guest.onRead = async () => {
    assert.ok(BigInt(guest.acknowledged[1]) <= log.end(1));
  };
  pump.start();
  await pump.ended;
  assert.ok((await readAll(log, 1)).text.equals(guest.text[1]));
});

test("a terminal has one stream; the other is at its end from the beginning", async (t) => {
  const { open } = await setting(t, new Guest(Buffer.from("x")), { streams: [1] });
  const { log, pump } = await open();
  pump.start();
  await pump.ended;
  assert.deepEqual([log.end(1), log.ended(1), log.end(2), log.ended(2)], [1n, true, 0n, true]);
});

test("the next owner goes on where the log ends, whenever the one before was stopped", async (t) => {
  const guest = new Guest(noise(2 * streamLimits.ringBytes), noise(300_000));
  const { open, errors } = await setting(t, guest);
  const random = seededRandom(5);
  for (let owners = 0; ; owners += 1) {
    const { log, pump } = await open();
    let reads = random.below(4);
    guest.onRead = async () => {
      reads -= 1;
      if (reads < 0 && owners < 40) void pump.stop();
    };
    pump.start();
    await pump.ended;
    await log.close();
    if (log.ended(1) && log.ended(2)) break;
  }
  const { log } = await open();
  assert.deepEqual(errors, []);
  for (const stream of [1, 2] as const) {
    const { text, lost } = await readAll(log, stream);
    assert.equal(lost, 0);
    assert.ok(text.equals(guest.text[stream]));
  }
});

test("a lost link is waited for, told once, and costs nothing; what the guest has lost shows as a gap", async (t) => {
  const guest = new Guest(Buffer.from("0123456789"));
  guest.written = 4;
  const clock = new ManualClock();
  const { open, errors } = await setting(t, guest, { clock });
  const { log, pump } = await open();
  pump.start();
  while (log.end(1) < 4n) await new Promise(setImmediate);
  guest.failure = new BelljarError("AGENT_DISCONNECTED", "gone");
  for (let tries = 0; tries < 3; tries += 1) {
    while (clock.sleepers < 1) await new Promise(setImmediate);
    await clock.advance(logLimits.retryMs);
  }
  assert.deepEqual(errors, ["AGENT_DISCONNECTED"]);
  guest.failure = undefined;
  guest.fallen[1] = 6;
  guest.write(10);
  while (!log.ended(1)) await clock.advance(logLimits.retryMs);
  assert.deepEqual(await readAll(log, 1), { text: Buffer.from("01236789"), lost: 2 });
});

test("a guest that knows the process no more ends the pump", async (t) => {
  const guest = new Guest(Buffer.from("x"));
  guest.failure = new BelljarError("CONTAINER_NOT_FOUND", "no such container");
  const { open, errors } = await setting(t, guest);
  const { log, pump } = await open();
  pump.start();
  await pump.ended;
  assert.deepEqual(errors, ["CONTAINER_NOT_FOUND", "CONTAINER_NOT_FOUND"]);
  assert.equal(log.ended(1), false);
});

test("an attached cursor that does not read holds the process up; one that only looks does not", async (t) => {
  const total = 6 * streamLimits.ringBytes;
  const guest = new Guest(Buffer.alloc(total, "x"));
  const { open } = await setting(t, guest);
  const { log, pump } = await open();
  const attached = new OutputCursor(log, { stream: 1, attached: true });
  const looking = new OutputCursor(log, { stream: 1 });
  pump.start();
  while (log.end(1) <= BigInt(logLimits.attachedLagMaxBytes)) await new Promise(setImmediate);
  for (let turns = 0; turns < 100; turns += 1) await new Promise(setImmediate);
  assert.ok(log.end(1) <= BigInt(logLimits.attachedLagMaxBytes + streamLimits.chunkMaxBytes));
  let bytes = 0;
  for (let end = false; !end; ) {
    const piece = await attached.read({ maxBytes: 100_000, waitMs: 10_000 });
    assert.equal(Number(piece.offset), bytes);
    bytes += piece.data.length;
    end = piece.end;
  }
  assert.equal(bytes, total);
  await pump.ended;
  looking.detach();
});

test("stopping does not wait for a guest that does not answer", async (t) => {
  const guest = new Guest(Buffer.from("x"));
  guest.onRead = () => new Promise(() => {});
  const { open } = await setting(t, guest);
  const { pump } = await open();
  pump.start();
  await pump.stop();
  await pump.ended;
  const unstarted = (await open()).pump;
  await unstarted.stop();
  await unstarted.ended;
});
