/**
 * Fuzzer of the link between host and guest: what each end does with bytes that the other one may send.
 *
 *   node fuzz/ttrpc.ts [--seed 1] [--runs 20000]      random inputs, each repeatable from seed and number
 *   node fuzz/ttrpc.ts --repro FILE                   one input from a file, with what came of it
 *
 * Every input goes, cut into random pieces, to the frame decoders, to both scanners of the handshake, to the guest's server and to
 * the host's link. Rules: only the errors that are named below; no more bytes held than a frame; the guest's server still
 * answers a new connection afterwards; the host's link has either ended or still works.
 */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { Duplex } from "node:stream";
import { parseArgs } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Port } from "../agent/port.ts";
import { AgentServer, type Handlers } from "../agent/server.ts";
import { Link } from "../src/agent-client/link.ts";
import { BelljarError } from "../src/base/index.ts";
import {
  FrameDecoder as Decoder,
  decodeRequest,
  decodeResponse,
  decodeStatus,
  EchoScanner,
  encodeEcho,
  encodeErrorResponse,
  encodeHello,
  encodeRequest,
  encodeReset,
  encodeResponse,
  type FrameDecoder,
  HelloResponseSchema,
  HelloScanner,
  PROTOCOL_VERSION,
  REQUEST,
  RESPONSE,
  ReadOutputRequestSchema,
} from "../src/protocol/index.ts";
import { type Random, seededRandom } from "../test/support/random.ts";

const SERVICE = "belljar.agent.v1.AgentService";
const NONCE = "0123456789abcdef".repeat(2);
const LINK_ERRORS: readonly string[] = ["AGENT_PROTOCOL", "AGENT_DISCONNECTED"];

/** Well-formed pieces, which inputs are made of before they are damaged. */
function piecesOf(random: Random): readonly [Buffer, ...Buffer[]] {
  const streamId = 2 * random.below(4) + 1;
  const readOutput = create(ReadOutputRequestSchema, { containerId: "c1", stream: 1, maxBytes: random.below(100) });
  const hello = toBinary(HelloResponseSchema, create(HelloResponseSchema, { protocolVersion: PROTOCOL_VERSION }));
  return [
    encodeHello({ nonce: NONCE, version: random.below(3) }),
    encodeEcho({ nonce: NONCE, version: random.below(3) }),
    encodeRequest(streamId, { service: SERVICE, method: "Hello", payload: Buffer.from("0801", "hex"), timeoutMs: 5 }),
    encodeRequest(streamId, {
      service: SERVICE,
      method: "ReadOutput",
      payload: toBinary(ReadOutputRequestSchema, readOutput),
    }),
    encodeRequest(streamId, { service: SERVICE, method: "Hello", payload: encodeHello({ nonce: NONCE, version: 1 }) }),
    encodeResponse(streamId, hello),
    encodeErrorResponse(streamId, new BelljarError("PROCESS_NOT_FOUND", "gone")),
    encodeReset(),
    Buffer.alloc(random.below(64), random.below(256)),
  ];
}

/** The input of one run: a few pieces, with a few of their bytes changed, taken out or put in. */
export function inputOf(seed: number, run: number): Buffer {
  const random = seededRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(run + 1, 0x85ebca6b));
  let input: Buffer = Buffer.concat(Array.from({ length: 1 + random.below(6) }, () => random.pick(piecesOf(random))));
  for (let count = random.below(5); count > 0; count -= 1) input = damage(input, random);
  return input;
}

function damage(input: Buffer, random: Random): Buffer {
  const at = random.below(input.length + 1);
  const before = input.subarray(0, at);
  const after = input.subarray(at);
  switch (random.below(4)) {
    case 0: {
      const copy = Buffer.from(input);
      const where = random.below(Math.max(copy.length, 1));
      copy[where] = (copy[where] ?? 0) ^ (1 << random.below(8));
      return copy;
    }
    case 1:
      return before;
    case 2:
      return Buffer.concat([
        before,
        Buffer.from(Array.from({ length: random.below(12) }, () => random.below(256))),
        after,
      ]);
    default:
      return Buffer.concat([before, after.subarray(random.below(after.length + 1))]);
  }
}

/** The same cuts for the same input, so that a file repeats what a run found. */
function cut(input: Buffer): Buffer[] {
  const random = seededRandom(input.length);
  const pieces: Buffer[] = [];
  for (let at = 0; at < input.length; ) {
    const length = 1 + random.below(40);
    pieces.push(input.subarray(at, at + length));
    at += length;
  }
  return pieces;
}

/** Gives one input to everything. @throws when a rule is broken */
export async function tryInput(input: Buffer): Promise<Readonly<Record<string, string>>> {
  return {
    requests: tryDecoder(input, new Decoder(REQUEST), (frame) => void decodeRequest(frame)),
    responses: tryDecoder(input, new Decoder(RESPONSE), (frame) => void decodeStatus(decodeResponse(frame).status)),
    hello: tryHello(input),
    echo: tryEcho(input),
    server: await tryServer(input),
    link: await tryLink(input),
  };
}

function tryDecoder(
  input: Buffer,
  decoder: FrameDecoder,
  decode: (frame: ReturnType<FrameDecoder["push"]>[number]) => void,
): string {
  let frames = 0;
  try {
    for (const piece of cut(input)) {
      for (const frame of decoder.push(piece)) {
        frames += 1;
        decode(frame);
      }
    }
  } catch (error) {
    return reasonOf(error, LINK_ERRORS);
  }
  return frames > 0 ? "frames" : "nothing";
}

function reasonOf(error: unknown, allowed: readonly string[]): string {
  if (error instanceof BelljarError && allowed.includes(error.reason)) return error.reason;
  throw new Error("not one of the errors that may come", { cause: error });
}

/** Cutting must not change what is found: not which connection is the last one, nor which bytes belong to it. */
function tryHello(input: Buffer): string {
  const run = (pieces: readonly Buffer[]): { readonly hellos: string; readonly bytes: Buffer } => {
    const scanner = new HelloScanner();
    let hellos = "";
    let bytes: Buffer = Buffer.alloc(0);
    for (const piece of pieces) {
      for (const event of scanner.push(piece)) {
        if (event.kind === "bytes") bytes = Buffer.concat([bytes, event.bytes]);
        else {
          hellos = `${event.line.nonce} ${event.line.version}`;
          bytes = Buffer.alloc(0);
        }
      }
    }
    return { hellos, bytes };
  };
  const whole = run([input]);
  const inPieces = run(cut(input));
  // A marker with a broken line behind it ends the connection; whole, the bytes before it are not even shown.
  if (whole.bytes.length > 0) assert.deepEqual(inPieces, whole);
  return whole.hellos === "" ? "none" : "connected";
}

function tryEcho(input: Buffer): string {
  const whole = new EchoScanner(NONCE).push(input);
  const scanner = new EchoScanner(NONCE);
  const pieces = cut(input);
  for (const [index, piece] of pieces.entries()) {
    const result = scanner.push(piece);
    if (result.kind !== "echo") continue;
    assert.ok(whole.kind === "echo");
    const rest = Buffer.concat([result.rest, ...pieces.slice(index + 1)]);
    assert.deepEqual(rest, whole.rest);
    return "echo";
  }
  assert.notEqual(whole.kind, "echo");
  return whole.kind;
}

/** A port whose bytes are there at once, and that keeps what is written. */
class MemoryPort implements Port {
  readonly #arriving: Buffer[];
  readonly written: Buffer[] = [];
  readonly done = Promise.withResolvers<void>();

  constructor(arriving: readonly Buffer[]) {
    this.#arriving = [...arriving];
  }

  async read(): Promise<Buffer> {
    const next = this.#arriving.shift();
    if (next !== undefined) return next;
    return await new Promise<never>(() => {});
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.written.push(Buffer.from(bytes));
    if (Buffer.concat(this.written).includes(LAST_ANSWER)) this.done.resolve();
  }
}

const LAST_NONCE = "f".repeat(32);
const LAST_ANSWER = Buffer.from("still here");

async function nothing(): Promise<Record<string, never>> {
  return {};
}

const handlers: Handlers = {
  hello: async () => ({ agentVersion: LAST_ANSWER.toString() }),
  configureSandbox: nothing,
  rehearse: nothing,
  prepareProcess: nothing,
  configureNetwork: nothing,
  getNetwork: nothing,
  fitResources: nothing,
  freeze: nothing,
  thaw: nothing,
  getGuestStats: nothing,
  findDevice: nothing,
  createContainer: nothing,
  startContainer: nothing,
  removeContainer: nothing,
  listContainers: nothing,
  pauseContainer: nothing,
  resumeContainer: nothing,
  updateContainer: nothing,
  growStorage: nothing,
  getContainerStats: nothing,
  execProcess: nothing,
  signalProcess: nothing,
  waitProcess: nothing,
  resizeTerminal: nothing,
  statFile: nothing,
  listDirectory: nothing,
  openFile: nothing,
  readFile: nothing,
  writeFile: nothing,
  commitFile: nothing,
  closeFile: nothing,
  makeDirectory: nothing,
  makeLink: nothing,
  removeFile: nothing,
  renameFile: nothing,
  setFileAttributes: nothing,
  watchFile: nothing,
  copyIn: nothing,
  releaseProcess: nothing,
  readOutput: nothing,
  writeInput: nothing,
  shutdown: nothing,
};

async function tryServer(input: Buffer): Promise<string> {
  const hello = encodeHello({ nonce: LAST_NONCE, version: PROTOCOL_VERSION });
  const payload = Buffer.from("0801", "hex");
  const port = new MemoryPort([
    encodeHello({ nonce: NONCE, version: PROTOCOL_VERSION }),
    ...cut(input),
    hello,
    encodeRequest(1, { service: SERVICE, method: "Hello", payload }),
  ]);
  const failed = new AgentServer(port, handlers).run();
  await Promise.race([port.done.promise, failed]);
  return Buffer.concat(port.written).includes(encodeReset()) ? "reset" : "served";
}

async function tryLink(input: Buffer): Promise<string> {
  const socket = new GuestSide();
  const link = new Link(socket, Buffer.alloc(0));
  const call = link.call("getGuestStats", {}, { timeoutMs: 60_000 }).then(
    () => "answered",
    (error: unknown) => reasonOf(error, [...LINK_ERRORS, "PROCESS_NOT_FOUND", "AGENT_FAILED"]),
  );
  for (const piece of cut(input)) socket.push(piece);
  const flushed = new Promise<string>((resolve) => setImmediate(() => setImmediate(() => resolve("open"))));
  const ended = link.closed.then((error) => error?.reason ?? "closed");
  const outcome = await Promise.race([ended, flushed]);
  if (outcome !== "open") assert.ok(LINK_ERRORS.includes(outcome), outcome);
  await link.close();
  assert.ok((await call) !== "");
  return outcome;
}

/** Stands in for a socket: what the guest sends is pushed, what the host sends is dropped. */
class GuestSide extends Duplex {
  override _read(): void {}
  override _write(_chunk: unknown, _encoding: string, callback: () => void): void {
    callback();
  }
}

/** @throws with seed and number of the run, its input as the argument of `keep`, when a rule is broken */
export async function fuzz(
  seed: number,
  runs: number,
  keep?: (input: Buffer) => Promise<string>,
): Promise<ReadonlyMap<string, number>> {
  const outcomes = new Map<string, number>();
  for (let run = 0; run < runs; run += 1) {
    const input = inputOf(seed, run);
    try {
      for (const [target, outcome] of Object.entries(await tryInput(input))) {
        const name = `${target} ${outcome}`;
        outcomes.set(name, (outcomes.get(name) ?? 0) + 1);
      }
    } catch (error) {
      const file = await keep?.(input);
      throw new Error(`seed ${seed}, run ${run}${file === undefined ? "" : `; --repro ${file}`}`, { cause: error });
    }
  }
  return outcomes;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: "1" },
      runs: { type: "string", default: "20000" },
      repro: { type: "string" },
    },
  });
  if (values.repro !== undefined) {
    process.stdout.write(`${JSON.stringify(await tryInput(await readFile(values.repro)))}\n`);
    return;
  }
  const startMs = performance.now();
  const outcomes = await fuzz(Number(values.seed), Number(values.runs), async (input) => {
    await writeFile("ttrpc-found", input);
    return "ttrpc-found";
  });
  const seconds = ((performance.now() - startMs) / 1_000).toFixed(1);
  process.stdout.write(`${values.runs} inputs from seed ${values.seed} in ${seconds} s\n`);
  for (const [name, count] of [...outcomes].sort()) process.stdout.write(`  ${name}: ${count}\n`);
}

if (import.meta.main) await main();
