/** The host's end against guests that answer late, wrongly, not at all, or with rubbish. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { BelljarError, linkLimits, silentLog } from "../base/index.ts";
import {
  decodeRequest,
  encodeEcho,
  encodeErrorResponse,
  encodeFrame,
  encodeHello,
  encodeReset,
  encodeResponse,
  type Frame,
  FrameDecoder,
  GetGuestStatsResponseSchema,
  HelloResponseSchema,
  HelloScanner,
  PROTOCOL_VERSION,
  REQUEST,
  RESPONSE,
} from "../protocol/index.ts";
import { connectAgent } from "./connect.ts";
import { Link } from "./link.ts";

/** The guest's end of a link, in memory: requests are collected, answers are pushed. */
class Guest extends Duplex {
  readonly requests: Frame[] = [];
  readonly #decoder = new FrameDecoder(REQUEST);
  /** Holds back the host's writes, as a guest does that reads nothing. */
  stalled = false;
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    this.requests.push(...this.#decoder.push(chunk));
    if (!this.stalled) callback();
  }
}

const stats = toBinary(
  GetGuestStatsResponseSchema,
  create(GetGuestStatsResponseSchema, { processes: 7, memoryTotalBytes: 1n }),
);

function open(): { guest: Guest; link: Link } {
  const guest = new Guest();
  return { guest, link: new Link(guest, Buffer.alloc(0)) };
}

test("answers find their calls in any order", async () => {
  const { guest, link } = open();
  const calls = [link.call("getGuestStats", {}), link.call("shutdown", {}), link.call("getGuestStats", {})];
  await new Promise(setImmediate);
  assert.deepEqual(
    guest.requests.map((frame) => [frame.streamId, decodeRequest(frame).method]),
    [
      [1, "GetGuestStats"],
      [3, "Shutdown"],
      [5, "GetGuestStats"],
    ],
  );
  guest.push(encodeResponse(5, stats));
  guest.push(encodeErrorResponse(3, new BelljarError("INVALID_TRANSITION", "no")));
  guest.push(encodeResponse(1, new Uint8Array(0)));
  assert.equal((await (calls[2] as ReturnType<typeof link.call<"getGuestStats">>)).processes, 7);
  await assert.rejects(calls[1] as Promise<unknown>, { reason: "INVALID_TRANSITION", message: "no" });
  await calls[0];
  await link.close();
});

test("a call that is abandoned, or late, leaves the link as it was", async () => {
  const { guest, link } = open();
  const controller = new AbortController();
  const abandoned = link.call("getGuestStats", {}, { signal: controller.signal });
  controller.abort();
  await assert.rejects(abandoned, { reason: "CANCELLED" });
  await assert.rejects(link.call("getGuestStats", {}, { timeoutMs: 1 }), { reason: "AGENT_TIMEOUT" });
  guest.push(encodeResponse(1, stats));
  guest.push(encodeResponse(3, Buffer.from("rubbish nobody reads")));
  const call = link.call("getGuestStats", {});
  await new Promise(setImmediate);
  guest.push(encodeResponse(5, stats));
  assert.equal((await call).processes, 7);
  await link.close();
});

test("the deadline is sent along", async () => {
  const { guest, link } = open();
  const call = link.call("getGuestStats", {}, { timeoutMs: 1234 });
  await new Promise(setImmediate);
  assert.deepEqual(
    guest.requests.map((frame) => decodeRequest(frame).timeoutMs),
    [1234],
  );
  await link.close();
  await assert.rejects(call, { reason: "AGENT_DISCONNECTED" });
});

test("a guest that breaks the protocol loses the link, and every call says why", async () => {
  const twice = Buffer.concat([encodeResponse(1, stats), encodeResponse(1, stats)]);
  const cases: [string, Buffer, string][] = [
    ["an answer to nothing", encodeResponse(9, stats), "AGENT_PROTOCOL"],
    ["a second answer", twice, "AGENT_PROTOCOL"],
    ["a request", encodeFrame({ type: REQUEST, streamId: 1, parts: [Buffer.alloc(0)] }), "AGENT_PROTOCOL"],
    ["a frame that is too large", Buffer.from("7fffffff000000010200", "hex"), "AGENT_PROTOCOL"],
    ["no protobuf", encodeFrame({ type: RESPONSE, streamId: 1, parts: [Buffer.of(0x0a, 0xff)] }), "AGENT_PROTOCOL"],
    ["no message of the method", encodeResponse(1, Buffer.of(0x0a, 0xff)), "AGENT_PROTOCOL"],
    ["a reset", encodeReset(), "AGENT_DISCONNECTED"],
  ];
  for (const [what, bytes, reason] of cases) {
    const { guest, link } = open();
    const first = link.call("getGuestStats", {}).catch((error: BelljarError) => error.reason);
    const second = link.call("getGuestStats", {});
    const failed = assert.rejects(second, { reason }, what);
    guest.push(bytes);
    assert.equal((await link.closed)?.reason, reason, what);
    await first;
    await failed;
    await assert.rejects(link.call("getGuestStats", {}), { reason }, what);
    assert.equal(guest.destroyed, true, what);
  }
});

test("callers wait while the guest reads nothing, and give up in time", async () => {
  const { guest, link } = open();
  guest.stalled = true;
  const specJson = Buffer.alloc(1024 * 1024);
  const calls = Array.from({ length: 12 }, () => link.call("createContainer", { specJson }, { timeoutMs: 200 }));
  const results = await Promise.allSettled(calls);
  assert.ok(results.every((result) => result.status === "rejected" && result.reason.reason === "AGENT_TIMEOUT"));
  assert.ok(guest.writableLength < linkLimits.sendQueueMaxBytes + 2 * specJson.length, String(guest.writableLength));
  await link.close();
});

interface Listener extends AsyncDisposable {
  readonly path: string;
}

async function listen(serve: (socket: Socket, count: number) => void): Promise<Listener> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-link-"));
  const sockets = new Set<Socket>();
  let count = 0;
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    count += 1;
    serve(socket, count);
  });
  const path = join(dir, "s");
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    path,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Answers the handshake, behind old bytes, and `Hello` with this version. */
function serveHello(socket: Socket, lineVersion: number, helloVersion: number): void {
  const scanner = new HelloScanner();
  const decoder = new FrameDecoder(REQUEST);
  socket.on("data", (chunk: Buffer) => {
    for (const event of scanner.push(chunk)) {
      if (event.kind === "hello") {
        socket.write(encodeResponse(1, Buffer.from("old")));
        socket.write(encodeEcho({ nonce: event.line.nonce, version: lineVersion }));
        continue;
      }
      for (const frame of decoder.push(event.bytes)) {
        const answer = create(HelloResponseSchema, { protocolVersion: helloVersion, kernelRelease: "6.1\u001b[2J" });
        socket.write(encodeResponse(frame.streamId, toBinary(HelloResponseSchema, answer)));
      }
    }
  });
}

const options = { timeoutMs: 10_000, log: silentLog };

test("a link is made behind old bytes, after the guest has hung up twice", async () => {
  await using server = await listen((socket, count) => {
    if (count <= 2) socket.destroy();
    else serveHello(socket, PROTOCOL_VERSION, PROTOCOL_VERSION);
  });
  const link = await connectAgent({ ...options, socketPath: server.path });
  assert.equal(link.hello.kernelRelease, "6.1 [2J");
  await link.close();
});

test("a guest that has dropped a hello hears another on the same connection; a late echo of the first does no harm", async () => {
  let connections = 0;
  await using server = await listen((socket) => {
    connections += 1;
    const scanner = new HelloScanner();
    let dropped: string | undefined;
    const onData = (chunk: Buffer): void => {
      for (const event of scanner.push(chunk)) {
        if (event.kind !== "hello") continue;
        if (dropped === undefined) {
          dropped = event.line.nonce;
          continue;
        }
        socket.off("data", onData);
        serveHello(socket, PROTOCOL_VERSION, PROTOCOL_VERSION);
        socket.write(encodeEcho({ nonce: dropped, version: PROTOCOL_VERSION }));
        socket.emit("data", encodeHello(event.line));
      }
    };
    socket.on("data", onData);
  });
  const link = await connectAgent({ ...options, socketPath: server.path });
  assert.equal(connections, 1);
  await link.close();
});

test("an agent of another version is refused with both versions named, wherever it says so", async () => {
  for (const [line, hello] of [
    [PROTOCOL_VERSION + 1, PROTOCOL_VERSION],
    [PROTOCOL_VERSION, PROTOCOL_VERSION + 1],
  ] as const) {
    await using server = await listen((socket) => serveHello(socket, line, hello));
    await assert.rejects(connectAgent({ ...options, socketPath: server.path }), {
      reason: "AGENT_VERSION",
      message: /version 1 of .* version 2$/,
    });
  }
});

test("a guest that is silent, absent or floods ends in an error of its own", async () => {
  await using silent = await listen(() => {});
  await assert.rejects(connectAgent({ ...options, timeoutMs: 100, socketPath: silent.path }), {
    reason: "AGENT_TIMEOUT",
  });
  await assert.rejects(connectAgent({ ...options, timeoutMs: 100, socketPath: `${silent.path}-none` }), {
    reason: "AGENT_TIMEOUT",
  });
  await using flood = await listen((socket) => {
    const block = Buffer.alloc(1024 * 1024, 0x61);
    const pour = (): void => void (socket.destroyed || socket.write(block, pour));
    pour();
  });
  await assert.rejects(connectAgent({ ...options, socketPath: flood.path }), { reason: "AGENT_PROTOCOL" });
  const controller = new AbortController();
  const connecting = connectAgent({ ...options, socketPath: silent.path, signal: controller.signal });
  controller.abort();
  await assert.rejects(connecting, { reason: "CANCELLED" });
});
