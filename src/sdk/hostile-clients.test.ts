import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import { FakeRuntime } from "../../test/support/fake-runtime.ts";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { apiLimits, silentLog } from "../base/index.ts";
import { type DaemonDeps, startDaemon } from "../daemon/index.ts";
import { Runtime } from "./index.ts";

interface World {
  readonly runtime: FakeRuntime;
  readonly socketPath: string;
  readonly friend: Awaited<ReturnType<typeof Runtime.connect>>;
}

async function setUp(t: TestScope, deps: Partial<DaemonDeps> = {}): Promise<World> {
  const dir = await tempDir(t);
  const runtime = new FakeRuntime();
  const daemon = await startDaemon({
    root: dir,
    runDir: dir,
    log: silentLog,
    openRuntime: async () => runtime,
    ...deps,
  });
  t.after(() => daemon.stop());
  const friend = await Runtime.connect({ root: t.dir, socketPath: daemon.socketPath, startDaemon: false });
  t.after(() => friend[Symbol.asyncDispose]());
  return { runtime, socketPath: daemon.socketPath, friend };
}

function dial(t: TestScope, socketPath: string): http2.ClientHttp2Session {
  const session = http2.connect("http://belljard", { createConnection: () => net.connect(socketPath) });
  session.on("error", () => {});
  t.after(() => session.destroy());
  return session;
}

function post(session: http2.ClientHttp2Session, method: string, body: unknown): http2.ClientHttp2Stream {
  const headers = { ":method": "POST", ":path": `/belljar.api.v1.${method}`, "content-type": "application/json" };
  const stream = session.request(headers);
  stream.on("error", () => {});
  stream.end(JSON.stringify(body));
  return stream;
}

async function gauge({ friend }: World, name: string): Promise<number> {
  const line = (await friend.metrics()).split("\n").find((each) => each.startsWith(`${name} `));
  return Number(line?.split(" ")[1]);
}

async function untilGauge(world: World, name: string, value: number): Promise<void> {
  while ((await gauge(world, name)) !== value) await new Promise((resolve) => setTimeout(resolve, 20));
}

const waiting = { image: "fake", container: { command: ["wait"] } };
const STREAMS = 10_000;

test("a client that asks for 10,000 streams at once has as many as one may, and nobody else notices", async (t) => {
  const world = await setUp(t);
  const { id } = await world.friend.sandboxes.create(waiting);
  const session = dial(t, world.socketPath);
  await once(session, "remoteSettings");
  for (let each = 0; each < STREAMS; each += 1) {
    post(session, "ContainerService/WaitContainer", { container: { sandbox: id } });
  }
  await untilGauge(world, "belljar_calls_under_way", apiLimits.streamsPerConnectionMax + 1);
  assert.equal((await world.friend.sandboxes.list()).length, 1);
  session.destroy();
  // The one that asks.
  await untilGauge(world, "belljar_calls_under_way", 1);
});

test("10,000 streams that are opened and reset end with what they asked for undone", async (t) => {
  const world = await setUp(t);
  const { id } = await world.friend.sandboxes.create(waiting);
  const session = dial(t, world.socketPath);
  await once(session, "remoteSettings");
  for (let each = 0; each < STREAMS && !session.destroyed; each += 1) {
    post(session, "ContainerService/WaitContainer", { container: { sandbox: id } }).close(
      http2.constants.NGHTTP2_CANCEL,
    );
    if (each % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal((await world.friend.sandboxes.list()).length, 1);
  session.destroy();
  await untilGauge(world, "belljar_calls_under_way", 1);
  await untilGauge(world, "belljar_connections", 1);
});

test("a client that vanishes takes its calls with it: what they had begun is undone", async (t) => {
  const world = await setUp(t);
  world.runtime.holdCreate = new Promise(() => {});
  const session = dial(t, world.socketPath);
  post(session, "SandboxService/CreateSandbox", { spec: { image: "fake" } });
  await untilGauge(world, "belljar_calls_under_way", 2);
  session.socket.destroy();
  await untilGauge(world, "belljar_calls_under_way", 1);
  assert.deepEqual([world.runtime.cancelled, world.runtime.all.size], [1, 0]);
});

test("more connections than there may be are closed, and those that are there go on", async (t) => {
  const world = await setUp(t);
  const sockets = Array.from({ length: apiLimits.connectionsMax + 50 }, () => net.connect(world.socketPath));
  let closed = 0;
  for (const socket of sockets) {
    socket.on("error", () => {});
    socket.on("close", () => {
      closed += 1;
    });
    socket.resume();
  }
  while (closed < 50) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(await world.friend.sandboxes.list(), []);
  for (const socket of sockets) socket.destroy();
  await untilGauge(world, "belljar_connections", 1);
});

test("garbage inside a call is refused, whatever it is, and the connection goes on", async (t) => {
  const world = await setUp(t);
  const session = dial(t, world.socketPath);
  const bodies = [
    "",
    "{",
    "null",
    "[]",
    '"x"',
    `{"sandbox":${"[".repeat(50_000)}`,
    '{"sandbox":7}',
    '{"nonesuch":1}',
    "\0\0",
  ];
  for (const body of bodies) {
    const stream = session.request({
      ":method": "POST",
      ":path": "/belljar.api.v1.SandboxService/GetSandbox",
      "content-type": "application/json",
    });
    stream.on("error", () => {});
    stream.resume();
    stream.end(body);
    const [headers] = await once(stream, "response");
    assert.ok(headers[":status"] >= 400 && headers[":status"] < 500, `${body.slice(0, 20)}: ${headers[":status"]}`);
  }
  for (const name of ["", "x".repeat(1_000_000), "../../etc", "-", "ünïcode", "\u0000", "a b", "{{.}}"]) {
    await assert.rejects(world.friend.sandboxes.get(name), { reason: "SANDBOX_NOT_FOUND" });
  }
  assert.deepEqual(await world.friend.sandboxes.list(), []);
});
