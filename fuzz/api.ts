/**
 * Fuzzer of the daemon's API, over its socket.
 *
 *   node fuzz/api.ts [--seed 1] [--runs 20000]      the same cases for the same seed
 *
 * Rules: the daemon's process lives; every call has an answer, or ends when its time is over; no answer says that something inside went
 * wrong (`INTERNAL`); another client is served all the while; and the daemon's heap is as large afterwards as it was after the first tenth.
 */
import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import http2 from "node:http2";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { daemonSocketPath } from "../src/daemon/index.ts";
import { seededRandom } from "../test/support/random.ts";
import { type ApiCase, makeCase } from "./api-cases.ts";

/** A call whose time is over is answered soon after. */
const HANG_MS = 20_000;
const AT_ONCE = 64;
const RAW_EVERY = 500;
const GROWTH_MAX_BYTES = 16 * 2 ** 20;

export interface ApiFuzzReport {
  readonly runs: number;
  /** Answers by HTTP status, and by code of Connect. */
  readonly answers: ReadonlyMap<string, number>;
  readonly growthBytes: number;
}

/** `onCases` hears now and then how many there have been. */
export async function fuzzApi(seed: number, runs: number, onCases?: (count: number) => void): Promise<ApiFuzzReport> {
  const dir = await mkdtemp(join(tmpdir(), "fuzz-"));
  // It is no test: what a test's process loads first would make directories that nobody removes when it is killed.
  const execArgv = [...process.execArgv.filter((word) => !/^--(?:test|import)/.test(word)), "--expose-gc"];
  const child = fork(join(import.meta.dirname, "api-daemon.ts"), [dir], { execArgv });
  const died = new Promise<never>((_, reject) => {
    child.once("exit", (code, signal) => reject(new Error(`the daemon ended with ${signal ?? code}`)));
  });
  died.catch(() => {});
  const socketPath = daemonSocketPath(dir);
  const answers = new Map<string, number>();
  const ask = async (): Promise<number> => {
    child.send("heap");
    const [bytes] = await Promise.race([once(child, "message"), died]);
    return Number(bytes);
  };
  let session: http2.ClientHttp2Session | undefined;
  try {
    await Promise.race([once(child, "message"), died]);
    const random = seededRandom(seed);
    let before = 0;
    const tenth = Math.max(1, Math.floor(runs / 10 / AT_ONCE) * AT_ONCE);
    for (let at = 0; at < runs; at += AT_ONCE) {
      if (at === tenth || (at === 0 && tenth >= runs)) before = await ask();
      if (session === undefined || session.closed || session.destroyed) session = dial(socketPath);
      const own = session;
      const cases = Array.from({ length: Math.min(AT_ONCE, runs - at) }, () => makeCase(random));
      const results = await Promise.race([Promise.all(cases.map((each) => send(own, each))), died]);
      for (const [index, result] of results.entries()) {
        const what = cases[index];
        answers.set(result, (answers.get(result) ?? 0) + 1);
        const shown = `seed ${seed}, case ${at + index}: ${what?.path} ${what?.body.toString().slice(0, 500)}`;
        assert.ok(result !== "hangs", `no answer: ${shown}`);
        assert.ok(!result.startsWith("internal"), `${result}: ${shown}`);
      }
      if (at % (RAW_EVERY * AT_ONCE) < AT_ONCE) {
        onCases?.(at);
        await sendRaw(socketPath, Buffer.from(Array.from({ length: 2_000 }, () => random.below(256))));
        await served(socketPath, `seed ${seed}, after case ${at}`);
      }
    }
    await served(socketPath, `seed ${seed}, at the end`);
    session?.destroy();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const growthBytes = (await ask()) - before;
    assert.ok(growthBytes < GROWTH_MAX_BYTES, `seed ${seed}: the daemon's heap has grown by ${growthBytes} bytes`);
    return { runs, answers, growthBytes };
  } finally {
    session?.destroy();
    child.removeAllListeners("exit");
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    await rm(dir, { recursive: true, force: true });
  }
}

function dial(socketPath: string): http2.ClientHttp2Session {
  const session = http2.connect("http://belljard", { createConnection: () => net.connect(socketPath) });
  session.on("error", () => {});
  return session;
}

/** What came of it: a code of Connect, an HTTP status, or how it ended without. */
async function send(
  session: http2.ClientHttp2Session,
  { path, contentType, body, timeoutMs }: ApiCase,
): Promise<string> {
  if (session.closed || session.destroyed) return "no connection";
  const { promise, resolve } = Promise.withResolvers<string>();
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    ...(contentType === "" ? {} : { "content-type": contentType }),
    "connect-protocol-version": "1",
    "connect-timeout-ms": String(timeoutMs),
  });
  const hang = setTimeout(() => resolve("hangs"), HANG_MS);
  let status = "";
  const pieces: Buffer[] = [];
  stream.on("response", (headers) => {
    status = String(headers[":status"]);
  });
  stream.on("data", (data: Buffer) => void pieces.push(data));
  stream.on("error", () => resolve("reset"));
  stream.on("close", () => resolve(judge(status, Buffer.concat(pieces))));
  stream.end(body);
  try {
    return await promise;
  } finally {
    clearTimeout(hang);
  }
}

function judge(status: string, body: Buffer): string {
  if (status === "") return "reset";
  // Of a stream, the error is in its last message. What Connect could not read at all it calls internal, without a reason of ours.
  const text = body.toString("latin1");
  const code = /"code":\s*"(\w+)"/.exec(text)?.[1];
  if (code === undefined) return status;
  if (code !== "internal") return code;
  if (!text.includes('"details"')) return "unreadable";
  return `internal ${text.slice(0, 300)}`;
}

/** A case may just have deleted what it asks for. */
async function served(socketPath: string, when: string): Promise<void> {
  const endMs = performance.now() + HANG_MS;
  while ((await friendly(socketPath)) !== "demo") {
    assert.ok(performance.now() < endMs, `${when}: another client is not served`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function friendly(socketPath: string): Promise<string | undefined> {
  const session = dial(socketPath);
  const stream = session.request({
    ":method": "POST",
    ":path": "/belljar.api.v1.SandboxService/GetSandbox",
    "content-type": "application/json",
  });
  stream.end(JSON.stringify({ sandbox: "demo" }));
  let text = "";
  for await (const piece of stream.setEncoding("utf8")) text += String(piece);
  session.destroy();
  return /"name":\s*"(demo)"/.exec(text)?.[1];
}

/** Nothing that is HTTP. */
async function sendRaw(socketPath: string, bytes: Buffer): Promise<void> {
  const socket = net.connect(socketPath);
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.end(bytes);
  socket.resume();
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, HANG_MS))]);
  assert.ok(socket.closed, "garbage keeps a connection open");
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { seed: { type: "string", default: "1" }, runs: { type: "string", default: "20000" } },
  });
  const beganMs = performance.now();
  const elapsedSeconds = (): number => Math.round((performance.now() - beganMs) / 1000);
  const tell = (count: number): void => void process.stdout.write(`${count} cases after ${elapsedSeconds()} s\n`);
  const report = await fuzzApi(Number(values.seed), Number(values.runs), tell);
  const seconds = elapsedSeconds();
  process.stdout.write(`${report.runs} cases in ${seconds} s, heap grown by ${report.growthBytes} bytes\n`);
  const sorted = [...report.answers].sort(([, one], [, other]) => other - one);
  for (const [answer, count] of sorted) process.stdout.write(`  ${answer}: ${count}\n`);
}
