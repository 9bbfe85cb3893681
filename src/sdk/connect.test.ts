import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, stat, writeFile } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { FakeRuntime, patternByte } from "../../test/support/fake-runtime.ts";
import { type TestScope, tempDir, test } from "../../test/support/harness.ts";
import { BelljarError, createLog, newId, runTool, silentLog, streamLimits, VERSION } from "../base/index.ts";
import { type Daemon, type DaemonDeps, fromConnectError, startDaemon } from "../daemon/index.ts";
import { acquireLock } from "../store/index.ts";
import { type DeviceRequest, type EventsOptions, Runtime, type RuntimeEvent } from "./index.ts";

interface Setup {
  readonly dir: string;
  readonly runtime: FakeRuntime;
  readonly daemon: Daemon;
  readonly socketPath: string;
}

async function setUp(t: TestScope, deps: Partial<DaemonDeps> = {}): Promise<Setup> {
  const dir = await tempDir(t);
  const runtime = new FakeRuntime();
  const openRuntime = async (): Promise<FakeRuntime> => runtime;
  const daemon = await startDaemon({ root: dir, runDir: dir, log: silentLog, openRuntime, ...deps });
  t.after(() => daemon.stop());
  return { dir, runtime, daemon, socketPath: daemon.socketPath };
}

type Connected = Awaited<ReturnType<typeof Runtime.connect>>;

async function connect(t: TestScope, socketPath: string): Promise<Connected> {
  const runtime = await Runtime.connect({ root: t.dir, socketPath, startDaemon: false });
  t.after(() => runtime[Symbol.asyncDispose]());
  return runtime;
}

const running = { image: "fake", container: { command: ["wait"] } };

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

test("a sandbox is created, seen, changed and deleted over the socket", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const config = {
    image: "fake",
    name: "first",
    memoryMib: 300,
    annotations: { team: "blue" },
    dns: { servers: ["192.0.2.1"] },
    container: {
      command: ["wait", "a b"],
      entrypoint: [],
      env: ["A=1", "HOME_OF", "NOT_SET"],
      clientEnvironment: { HOME_OF: "/x", SECRET: "s" },
      limits: { cpus: 0.5 },
    },
  };
  const sandbox = await sandboxes.create(config, { start: false });
  assert.equal(sandbox.name, "first");
  const arrived = runtime.find("first").config;
  assert.deepEqual(arrived.container?.entrypoint, []);
  // Only what was named leaves the client; a name without a value unsets what the image says.
  assert.deepEqual(arrived.container?.env, ["A=1", "HOME_OF=/x", "NOT_SET"]);
  assert.equal(arrived.container?.tmpfs, undefined);
  assert.deepEqual(arrived.container?.limits, { cpus: 0.5 });
  assert.deepEqual(arrived.dns?.servers, ["192.0.2.1"]);
  assert.equal((await sandbox.info()).state, "ready");
  await sandbox.start();
  await sandbox.pause();
  await sandbox.resume();
  await sandbox.setAnnotations({ more: "x" });
  await sandbox.update({ memoryMib: 512, sharedMemoryBytes: 4096 });
  assert.deepEqual(runtime.find("first").resources, { memoryMib: 512, cpus: undefined, sharedMemoryBytes: 4096 });
  assert.deepEqual(await sandbox.annotations(), { team: "blue", more: "x" });
  assert.deepEqual(await sandbox.info(), runtime.find("first").info());
  assert.deepEqual(await sandboxes.list(), [runtime.find("first").info()]);
  assert.equal((await sandbox.stats()).guest.processes, 7);
  await sandbox.stop();
  await sandbox.stop();
  await sandbox.delete();
  await assert.rejects(sandbox.info(), { reason: "SANDBOX_NOT_FOUND" });
});

test("devices of every kind arrive as they were asked for, and are told of", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const given = { path: "/x.img", containerPath: "/dev/x", access: "r" };
  const sandbox = await sandboxes.create({
    ...running,
    vhostUser: true,
    container: { command: ["wait"], devices: [given] },
  });
  const fake = runtime.find(sandbox.id);
  assert.deepEqual([fake.config.vhostUser, fake.config.container?.devices], [true, [given]]);
  const requests: readonly DeviceRequest[] = [
    {
      kind: "block",
      path: "/a",
      readOnly: true,
      format: "qcow2",
      driver: "virtio-blk",
      cache: { direct: true, noFlush: false },
      rates: { readBytesPerSecond: 1, writesPerSecond: 2 },
    },
    { kind: "generic", path: "/dev/fuse" },
    { kind: "vhost-user-blk", path: "/b", socketPath: undefined, readOnly: false, format: "raw" },
    { kind: "vhost-user-scsi", socketPath: "/s" },
    { kind: "vhost-user-net", socketPath: "/n", macAddress: "02:00:00:00:00:01" },
    { kind: "vhost-user-fs", tag: "t", directory: "/d", socketPath: undefined, readOnly: true, cache: "none" },
  ];
  for (const request of requests) await sandbox.devices.add(request);
  assert.deepEqual(fake.deviceRequests, requests);
  assert.deepEqual(await sandbox.devices.list(), fake.devices);
  await sandbox.devices.remove("d-0");
  await assert.rejects(sandbox.devices.remove("d-0"), { reason: "DEVICE_NOT_FOUND" });
  assert.equal((await sandbox.info()).devices.length, requests.length - 1);
});

test("a container's calls arrive", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const { main, containers, id } = await sandboxes.create(running);
  assert.equal((await containers.get("main")).id, main.id);
  assert.deepEqual(await containers.list(), [runtime.find(id).container()]);
  await assert.rejects(containers.get("other"), { reason: "CONTAINER_NOT_FOUND" });
  assert.equal((await containers.create({ image: "fake" })).id, main.id);
  await main.update({ memoryBytes: 1e9, cpuset: "0-1" });
  assert.deepEqual(runtime.find(id).limits, [{ memoryBytes: 1e9, cpuset: "0-1" }]);
  await main.growStorage(2 ** 34);
  assert.deepEqual((await main.info()).storage, { kind: "disk", sizeBytes: 2 ** 34 });
  const stats = await main.stats();
  assert.equal(stats.memory.detail["anon"], 9n);
  assert.equal(stats.memory.limitBytes, undefined);
  assert.equal(stats.blockIo[0]?.device, "8:0");
  await main.pause();
  await main.resume();
  const waiting = main.wait();
  await main.kill({ number: 15 });
  assert.deepEqual(runtime.find(id).processes.get("")?.signals, [15]);
  assert.equal((await waiting).exitCode, 3);
  assert.deepEqual((await main.processes()).length, 1);
  await main.stop({ timeoutMs: 0 });
  await main.delete({ force: true });
});

test("a process has its streams, its status and its signals", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const sandbox = await sandboxes.create(running);
  const child = await sandbox.spawn(["cat"], { stdin: true });
  const writer = child.stdin.getWriter();
  await writer.write(Buffer.from("hello, "));
  await writer.write(Buffer.alloc(streamLimits.chunkMaxBytes + 5, "x"));
  await writer.close();
  const fake = runtime.find(sandbox.id).processes.get(child.id);
  const input = Buffer.concat(fake?.input ?? []);
  assert.equal(input.length, streamLimits.chunkMaxBytes + 12);
  assert.equal(input.subarray(0, 9).toString(), "hello, xx");
  assert.equal((await child.status).exitCode, 3);
  await child.signal(10);
  await child.resize({ columns: 80, rows: 25 });
  await child.release();
  assert.deepEqual(fake?.signals, [10]);
  assert.equal((await sandbox.main.process(child.id)).pid, 77);
  await assert.rejects(sandbox.main.process("nonesuch"), { reason: "PROCESS_NOT_FOUND" });
  await assert.rejects(sandbox.spawn(["missing"]), { reason: "COMMAND_NOT_FOUND" });
  const { exitCode, stdout } = await sandbox.exec(["pattern", "4"]);
  assert.equal(exitCode, 3);
  assert.equal(stdout.length > 0, true);
});

test("an error comes out as it was thrown, with facts, remedy and causes", async (t) => {
  const { socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const error = await sandboxes.create({ image: "missing" }).catch((thrown: unknown) => thrown);
  assert.ok(error instanceof BelljarError);
  assert.deepEqual([error.reason, error.code, error.message], ["IMAGE_NOT_FOUND", "not_found", "no image missing"]);
  assert.deepEqual(error.facts, { name: "missing", tries: 2, sure: true, near: ["a", "b"] });
  assert.match(error.remedy ?? "", /belljar image/);
  const { cause } = error;
  assert.ok(cause instanceof BelljarError);
  assert.equal(cause.reason, "DISK_FAILED");
  assert.match(String(cause.cause), /EIO: sad/);
  const sandbox = await sandboxes.create(running);
  await sandbox.stop();
  await assert.rejects(sandbox.pause(), { reason: "INVALID_TRANSITION", code: "failed_precondition" });
});

test("a caller that gives up undoes its call in the daemon", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  runtime.holdCreate = new Promise(() => {});
  const controller = new AbortController();
  const creating = sandboxes.create(running, { signal: controller.signal });
  setTimeout(() => controller.abort(new BelljarError("CANCELLED", "enough")), 50);
  await assert.rejects(creating, { reason: "CANCELLED", message: "enough" });
  await until(() => runtime.cancelled === 1);
  assert.equal(runtime.all.size, 0);
});

test("a client that reads nothing holds the process up, and one that cancels lets it go", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const sandbox = await sandboxes.create({ image: "fake", container: { command: ["pattern", "1000000000"] } });
  const main = await sandbox.main.attach();
  const reader = main.stdout.getReader();
  await reader.read();
  const fake = runtime.find(sandbox.id).processes.get("");
  assert.ok(fake !== undefined);
  let before = -1n;
  while (fake.furthest !== before) {
    before = fake.furthest;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  assert.equal(before < 4n * 1024n * 1024n, true, `${before} bytes were produced though nobody read them`);
  // Another stream of the same connection is not held up.
  assert.equal((await sandbox.info()).state, "running");
  await reader.cancel();
  await until(() => fake.detached > 0);
});

test("the connection's other streams flow while one is not read", async (t) => {
  const { socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const config = { image: "fake", container: { command: ["pattern", "3000000"] } };
  const stalled = await (await sandboxes.create(config)).main.attach();
  const reader = stalled.stdout.getReader();
  await reader.read();
  const flowing = await (await sandboxes.create(config)).main.attach();
  let bytes = 0;
  for await (const chunk of flowing.stdout) bytes += chunk.length;
  assert.equal(bytes, 3_000_000);
  await reader.cancel();
});

test("logs and events are streams that end when they are let go", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const sandbox = await sandboxes.create({ image: "fake", container: { command: ["pattern", "5000"] } });
  let bytes = 0;
  for await (const record of sandbox.main.logs()) bytes += record.data.length;
  assert.equal(bytes, 5000);
  runtime
    .find(sandbox.id)
    .events.push(
      { kind: "state", atMs: 1, state: "running" },
      { kind: "container", atMs: 2, containerId: "c", state: "stopped" },
      { kind: "failed", atMs: 3, part: "agent", message: "m" },
    );
  const seen: unknown[] = [];
  for await (const event of sandbox.watch()) {
    seen.push(event);
    if (seen.length === 3) break;
  }
  assert.deepEqual(seen, runtime.find(sandbox.id).events);
  await until(() => runtime.find(sandbox.id).watchers === 0);
});

test("disposing deletes what this handle created, and only that", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  {
    await using sandbox = await sandboxes.create({ image: "fake" });
    assert.equal(runtime.find(sandbox.id).config.container?.keepAlive, true, "without a command it stays alive");
    await using _found = await sandboxes.get(sandbox.id);
  }
  assert.equal(runtime.all.size, 0);
  const { id } = await sandboxes.create(running);
  {
    await using _found = await sandboxes.get(id);
  }
  assert.equal(runtime.all.size, 1);
});

test("events of all sandboxes are replayed from a number on, and go on there after a lost connection", async (t) => {
  const { runtime, socketPath, daemon, dir } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const event = (number: number): RuntimeEvent => ({
    ...{ number, sandboxId: "a1", sandboxName: "web", atMs: number },
    ...(number % 2 === 0 ? { kind: "created", image: "x" } : { kind: "renamed", oldName: "shop" }),
  });
  runtime.events.push(event(1), event(2), event(3));
  const replayed: RuntimeEvent[] = [];
  for await (const each of sandboxes.events({ after: 1, follow: false })) replayed.push(each);
  assert.deepEqual(replayed, [event(2), event(3)]);
  let begin = -1;
  const seen: number[] = [];
  const following = (async () => {
    const options: EventsOptions = {
      onBegin: (after) => {
        begin = after;
      },
    };
    for await (const { number } of sandboxes.events(options)) {
      seen.push(number);
      if (number === 5) return;
    }
  })();
  await until(() => begin === 3);
  await daemon.stop();
  runtime.events.push(event(4));
  const next = await startDaemon({ root: dir, runDir: dir, log: silentLog, openRuntime: async () => runtime });
  t.after(() => next.stop());
  runtime.events.push(event(5));
  await following;
  assert.deepEqual(seen, [4, 5]);
});

test("a sandbox is renamed", async (t) => {
  const { runtime, socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const sandbox = await sandboxes.create({ ...running, name: "web" });
  await sandbox.rename("shop");
  assert.deepEqual([sandbox.name, runtime.find("shop").id], ["shop", sandbox.id]);
});

async function startProgram(t: TestScope, dir: string, id: string, total: number): Promise<ChildProcess> {
  const program = join(import.meta.dirname, "../../test/programs/fake-daemon.ts");
  const child = spawn(process.execPath, [program, dir, id, String(total)], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  });
  await once(child.stdout, "data");
  return child;
}

test("output goes on without gap or repeat when the daemon is killed and comes back", async (t) => {
  const dir = await tempDir(t);
  const id = newId();
  const total = 3_000_000;
  let daemon = await startProgram(t, dir, id, total);
  const { sandboxes } = await connect(t, join(dir, "belljard.sock"));
  const sandbox = await sandboxes.get(id);
  const main = await sandbox.main.attach();
  let offset = 0;
  let kills = 0;
  for await (const chunk of main.stdout) {
    for (const byte of chunk) {
      if (byte !== patternByte(offset)) assert.fail(`wrong byte at ${offset}`);
      offset += 1;
    }
    if (offset > (kills + 1) * 700_000 && kills < 3) {
      kills += 1;
      daemon.kill("SIGKILL");
      await once(daemon, "exit");
      daemon = await startProgram(t, dir, id, total);
    }
  }
  assert.deepEqual({ offset, kills, lost: main.lostBytes }, { offset: total, kills: 3, lost: 0n });
  assert.equal((await sandbox.main.wait()).exitCode, 3);
  const records = sandbox.main.logs({ follow: true });
  let logged = 0;
  for await (const record of records) {
    assert.equal(record.offset, BigInt(logged));
    logged += record.data.length;
    if (logged === 1_000_000) {
      daemon.kill("SIGKILL");
      await once(daemon, "exit");
      daemon = await startProgram(t, dir, id, total);
    }
    if (logged === total) break;
  }
  assert.equal(logged, total);
});

test("a change whose outcome nobody knows says so; reading is repeated", async (t) => {
  const dir = await tempDir(t);
  const id = newId();
  const daemon = await startProgram(t, dir, id, 10);
  const { sandboxes } = await connect(t, join(dir, "belljard.sock"));
  const sandbox = await sandboxes.get(id);
  daemon.kill("SIGSTOP");
  const pausing = sandbox.pause();
  const forking = sandbox.fork(2);
  const looking = sandbox.info();
  await new Promise((resolve) => setTimeout(resolve, 100));
  daemon.kill("SIGKILL");
  await Promise.all([
    assert.rejects(pausing, { reason: "DAEMON_LOST", code: "unavailable", message: /nobody knows/ }),
    assert.rejects(forking, { reason: "DAEMON_LOST", message: /being forked; nobody knows/ }),
  ]);
  await once(daemon, "exit");
  await startProgram(t, dir, id, 10);
  assert.equal((await looking).id, id);
});

test("without a daemon, and without leave to start one, the caller learns it at once", async (t) => {
  const dir = await tempDir(t);
  const connecting = Runtime.connect({ root: dir, socketPath: join(dir, "none.sock"), startDaemon: false });
  await assert.rejects(connecting, { reason: "DAEMON_UNAVAILABLE", message: /none\.sock/ });
});

test("a daemon that is told to stop ends what waits, lets its runtime go and removes its socket", async (t) => {
  const { runtime, daemon, socketPath, dir } = await setUp(t);
  const { sandboxes, daemon: status } = await connect(t, socketPath);
  assert.equal((await status()).pid, process.pid);
  assert.deepEqual((await status()).recovered, runtime.recovered);
  const sandbox = await sandboxes.create(running);
  const controller = new AbortController();
  const waiting = sandbox.main.wait({ signal: controller.signal });
  waiting.catch(() => {});
  await daemon.stop();
  assert.equal(runtime.released, 1);
  assert.deepEqual(await readdir(dir), []);
  assert.equal(runtime.all.size, 1, "sandboxes run on");
  controller.abort();
  await assert.rejects(waiting, { reason: "CANCELLED" });
});

test("a second daemon of a root is refused, and a dead one's socket replaced", async (t) => {
  const dir = await tempDir(t);
  // As a killed daemon leaves it: a socket that nobody listens on.
  await writeFile(join(dir, "belljard.sock"), "");
  const openRuntime = async (): Promise<FakeRuntime> => {
    const lock = await acquireLock(join(dir, "lock"), { mode: "exclusive", timeoutMs: 0, what: "the root" });
    const runtime = new FakeRuntime();
    runtime.release = () => lock.release();
    return runtime;
  };
  const deps = { root: dir, runDir: dir, log: silentLog, openRuntime };
  const first = await startDaemon(deps);
  await assert.rejects(startDaemon(deps), { reason: "LOCKED", message: new RegExp(`pid ${process.pid}`) });
  const { mode } = await stat(first.socketPath);
  assert.equal(mode & 0o777, 0o660);
  await (await connect(t, first.socketPath)).daemon();
  await first.stop();
  const second = await startDaemon(deps);
  await second.stop();
});

test("curl speaks JSON with it", async (t) => {
  const { socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  await sandboxes.create({ ...running, name: "seen" });
  const call = async (method: string, body: string): Promise<Record<string, unknown>> => {
    const url = `http://belljard/belljar.api.v1.${method}`;
    const args = ["-s", "--unix-socket", socketPath, "-H", "Content-Type: application/json", "-d", body, url];
    return JSON.parse((await runTool("curl", args)).stdout.toString());
  };
  assert.equal((await call("DaemonService/GetDaemon", "{}"))["pid"], process.pid);
  const { sandboxes: listed } = await call("SandboxService/ListSandboxes", "{}");
  assert.ok(Array.isArray(listed));
  assert.deepEqual([listed[0].name, listed[0].state, listed[0].createdAtMs], ["seen", "running", 1_700_000_000_000]);
  assert.equal((await call("SandboxService/GetSandbox", '{"sandbox":"x"}'))["code"], "not_found");
  assert.equal((await call("SandboxService/GetSandbox", "{"))["code"], "invalid_argument");
});

test("metrics are read with a plain GET: sandboxes, latencies, errors, the daemon itself", async (t) => {
  const { socketPath } = await setUp(t);
  const { sandboxes, metrics } = await connect(t, socketPath);
  const sandbox = await sandboxes.create(running);
  await sandbox.spawn(["cat"]);
  await assert.rejects(sandboxes.get("none"), { reason: "SANDBOX_NOT_FOUND" });
  const args = ["-s", "-i", "--unix-socket", socketPath, "http://belljard/metrics"];
  const page = (await runTool("curl", args)).stdout.toString();
  assert.match(page, /^HTTP\/1.1 200 OK\r\ncontent-type: text\/plain; version=0.0.4/);
  const samples = [
    'belljar_sandboxes{state="running"} 1',
    'belljar_sandboxes{state="unreadable"} 0',
    'belljar_call_duration_seconds_count{method="CreateSandbox"} 1',
    'belljar_call_duration_seconds_count{method="SpawnProcess"} 1',
    'belljar_errors_total{method="GetSandbox",reason="SANDBOX_NOT_FOUND"} 1',
    "belljar_connections 2",
  ];
  for (const sample of samples) assert.ok(page.includes(`\n${sample}\n`), `${sample} is not in ${page}`);
  assert.match(page, /belljar_daemon_event_loop_delay_seconds\{quantile="0.99"\} \d/);
  assert.match(page, /belljar_daemon_resident_memory_bytes \d{6,}/);
  // Every line is a comment or a sample.
  for (const line of page.split("\r\n\r\n")[1]?.trimEnd().split("\n") ?? []) {
    assert.match(line, /^(?:# (?:HELP|TYPE) \w+ .+|\w+(?:\{(?:\w+="[^"]*",?)+\})? -?[\d.e+-]+)$/);
  }
  assert.match(await metrics(), /belljar_info/);
});

test("the log says who did what to which sandbox, and why it failed", async (t) => {
  const lines: string[] = [];
  const log = createLog({ level: "info", json: true, write: (line) => lines.push(line) });
  const { socketPath } = await setUp(t, { log });
  const { sandboxes } = await connect(t, socketPath);
  const sandbox = await sandboxes.create({ ...running, name: "web" });
  await sandbox.pause();
  await assert.rejects(sandbox.pause(), { reason: "INVALID_TRANSITION" });
  const entries = lines.map((line) => JSON.parse(line)).filter(({ operation }) => operation === "PauseSandbox");
  const client = `belljar/${VERSION} pid=${process.pid} uid=${process.getuid?.()}`;
  assert.deepEqual(
    entries.map(({ message, sandbox, client, reason }) => ({ message, sandbox, client, reason })),
    [
      { message: "done", sandbox: sandbox.id, client, reason: undefined },
      { message: "failed", sandbox: sandbox.id, client, reason: "INVALID_TRANSITION" },
    ],
  );
  assert.match(entries[1].cause, /paused/);
});

test("a client of another version is refused with what to do, and learns what an older daemon does not know", async (t) => {
  const { socketPath } = await setUp(t);
  const call = async (method: string, ...headers: string[]): Promise<Record<string, unknown>> => {
    const url = `http://belljard/belljar.api.v1.${method}`;
    const all = ["Content-Type: application/json", ...headers].flatMap((header) => ["-H", header]);
    return JSON.parse(
      (await runTool("curl", ["-s", "--unix-socket", socketPath, ...all, "-d", "{}", url])).stdout.toString(),
    );
  };
  assert.equal((await call("DaemonService/GetDaemon", "belljar-api-version: 1"))["pid"], process.pid);
  const refused = await call("DaemonService/GetDaemon", "belljar-api-version: 2");
  assert.equal(refused["code"], "failed_precondition");
  assert.match(String(refused["message"]), /version 2 of the API, this daemon 1/);
  // As a newer client finds an older daemon: the method is not there.
  const error = fromConnectError(new ConnectError("HTTP 404", Code.Unimplemented));
  assert.match(error?.message ?? "", /another version/);
  assert.match(error?.remedy ?? "", /belljar daemon stop/);
});

test("garbage on the socket ends its connection and nothing else", async (t) => {
  const { daemon, socketPath } = await setUp(t);
  const garbage = [
    "\0\0\0",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot frames at all, surely",
    "P",
    "GET / HTTP/9\r\n\r\n",
    "PR",
  ];
  for (const bytes of garbage) {
    const socket = net.connect(socketPath);
    socket.on("error", () => {});
    socket.resume();
    socket.end(bytes);
    await once(socket, "close");
  }
  const runtime = await connect(t, daemon.socketPath);
  assert.deepEqual(await runtime.sandboxes.list(), []);
});

test("more calls than the daemon takes are refused, with a reason", async (t) => {
  const { socketPath } = await setUp(t, { maxCalls: 3 });
  const { sandboxes } = await connect(t, socketPath);
  const { main } = await sandboxes.create(running);
  const controller = new AbortController();
  const waits = [1, 2, 3, 4].map(() => main.wait({ signal: controller.signal }));
  const outcomes = Promise.allSettled(waits);
  await assert.rejects(Promise.race(waits), { reason: "DAEMON_BUSY", code: "resource_exhausted" });
  controller.abort();
  await outcomes;
});

test("a message larger than the limit is refused", async (t) => {
  const { socketPath } = await setUp(t);
  const { sandboxes } = await connect(t, socketPath);
  const big = { ...running, annotations: { big: "x".repeat(17 * 1024 * 1024) } };
  await assert.rejects(sandboxes.create(big), { code: "resource_exhausted" });
  assert.deepEqual(await sandboxes.list(), []);
});

test("a daemon that nobody needs ends; one with a client or a VM does not", async (t) => {
  const { runtime, daemon, socketPath } = await setUp(t, { idleExitMs: 60, idleCheckMs: 10 });
  const client = await Runtime.connect({ root: t.dir, socketPath, startDaemon: false });
  const sandbox = await client.sandboxes.create(running);
  let hasStopped = false;
  void daemon.stopped.then(() => {
    hasStopped = true;
  });
  await client[Symbol.asyncDispose]();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(hasStopped, false, "a VM runs");
  runtime.find(sandbox.id).move("stopped");
  await daemon.stopped;
});
