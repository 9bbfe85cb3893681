/** Host's end and guest's end together, over a socket, with plain processes in the place of containers. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  AgentClient,
  type AgentLink,
  connectAgent,
  InputWriter,
  inputStream,
  OutputReader,
  outputStream,
} from "../src/agent-client/index.ts";
import { identifyProcess, silentLog, streamLimits, systemClock } from "../src/base/index.ts";
import { createContainer, execProcess, shell } from "./testing/calls.ts";
import { type HostAgent, startHostAgent } from "./testing/host-agent.ts";

async function connect(agent: HostAgent): Promise<AgentLink> {
  return await connectAgent({ socketPath: agent.socketPath, timeoutMs: 10_000, log: silentLog });
}

async function readAll(link: AgentLink, containerId: string, stream: number): Promise<string> {
  const pieces: Uint8Array[] = [];
  for (let offset = 0n; ; ) {
    const answer = await link.call("readOutput", { containerId, stream, offset, maxBytes: 65536, waitMs: 10_000 });
    pieces.push(answer.data);
    offset = answer.offset + BigInt(answer.data.length);
    if (answer.end) return Buffer.concat(pieces).toString();
  }
}

test("a container runs from creation to removal", async () => {
  await using agent = await startHostAgent();
  const link = await connect(agent);
  assert.equal(link.hello.agentInstance, "0123456789abcdef");
  await createContainer(link, "c1", shell("echo out; echo err >&2; exit 7"));
  const started = await link.call("startContainer", { containerId: "c1" });
  assert.ok(started.pid > 1);
  assert.equal(await readAll(link, "c1", 1), "out\n");
  assert.equal(await readAll(link, "c1", 2), "err\n");
  const end = await link.call("waitProcess", { containerId: "c1", waitMs: 10_000 });
  assert.equal(end.ended, true);
  assert.equal(end.exitCode, 7);
  await link.call("removeContainer", { containerId: "c1" });
  await link.call("removeContainer", { containerId: "c1" });
  await assert.rejects(link.call("waitProcess", { containerId: "c1" }), { reason: "CONTAINER_NOT_FOUND" });
  await link.close();
  assert.equal(await link.closed, undefined);
});

async function started(agent: HostAgent, args: readonly string[], stdin = false): Promise<AgentLink> {
  const link = await connect(agent);
  await createContainer(link, "c1", args);
  await link.call("startContainer", { containerId: "c1", stdin });
  return link;
}

const init = { containerId: "c1", processId: "" };

test("16 MB go in and come out again as they were", async () => {
  await using agent = await startHostAgent();
  const link = await started(agent, ["cat"], true);
  const data = randomBytes(16 * 1024 * 1024);
  const writing = new Blob([data]).stream().pipeTo(inputStream(link, init));
  const hash = createHash("sha256");
  for await (const chunk of outputStream(link, init, { stream: 1 })) hash.update(chunk);
  await writing;
  assert.equal(hash.digest("hex"), createHash("sha256").update(data).digest("hex"));
  assert.equal((await link.call("waitProcess", { ...init, waitMs: 10_000 })).exitCode, 0);
  await link.close();
});

test("streams go on where they were when the link is cut, and bytes of the old link do no harm", async () => {
  await using agent = await startHostAgent();
  const client = new AgentClient({ socketPath: agent.socketPath, timeoutMs: 10_000, log: silentLog });
  await client.hello();
  const link = await started(agent, ["cat"], true);
  await link.close();
  // Marker and all: what a hello looks like is data here.
  const line = Buffer.from("\u00ffbelljar-link:0123456789abcdef0123456789abcdef 00000001\n", "latin1");
  const data = Buffer.concat(
    Array.from({ length: 60_000 }, (_, index) => Buffer.concat([line, Buffer.of(index % 251)])),
  );
  const writing = new Blob([data]).stream().pipeTo(inputStream(client, init));
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  let nextCut = 300_000;
  for await (const chunk of outputStream(client, init, { stream: 1 })) {
    pieces.push(chunk);
    bytes += chunk.length;
    if (bytes < nextCut) continue;
    nextCut += 300_000;
    agent.port.cut();
  }
  await writing;
  assert.ok(Buffer.concat(pieces).equals(data));
  await client.close();
});

test("a reader that stops reading stops the writer", async () => {
  await using agent = await startHostAgent();
  const link = await started(agent, shell("head -c 64000000 /dev/zero; echo done >&2"));
  const reader = new OutputReader(link, init, { stream: 1 });
  const first = await reader.next();
  assert.ok(first !== undefined && first.length > 0);
  // The ring, the pipe and the program's own buffer are all that can be ahead of the reader.
  const pid = (await agentProcess(agent)).pid;
  const written = await settledWrites(pid);
  assert.ok(written < 3 * 1024 * 1024, `${written} bytes were written`);
  let total = first.length;
  for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) total += chunk.length;
  assert.equal(total, 64_000_000);
  assert.equal(await readAll(link, "c1", 2), "done\n");
  await link.close();
});

/** The child of the shell that is the container's first process. */
async function agentProcess(agent: HostAgent): Promise<{ pid: number }> {
  const children = `/proc/${agent.runtime.lastPid}/task/${agent.runtime.lastPid}/children`;
  return { pid: Number((await readFile(children, "utf8")).trim()) };
}

/** Bytes that a process has written, once it writes no more because its pipe is full. */
async function settledWrites(pid: number): Promise<number> {
  for (let last = -1; ; ) {
    const now = Number(/^wchar: (\d+)$/m.exec(await readFile(`/proc/${pid}/io`, "utf8"))?.[1]);
    const state = (await readFile(`/proc/${pid}/wchan`, "utf8").catch(() => "")).trim();
    if (now === last && (state === "0" || state === "" || state.includes("pipe"))) return now;
    last = now;
    await nextTurn();
    await systemClock.sleep(50);
  }
}

test("calls about what is not there, or not allowed, are answered one by one", async () => {
  await using agent = await startHostAgent();
  const link = await connect(agent);
  const nothing = { containerId: "nope", processId: "x" };
  for (const method of ["startContainer", "signalProcess", "waitProcess", "resizeTerminal", "readOutput"] as const) {
    const request = method === "signalProcess" ? { ...nothing, signal: 9 } : nothing;
    const sized = method === "resizeTerminal" ? { ...nothing, size: { columns: 1, rows: 1 } } : request;
    await assert.rejects(link.call(method, sized), { reason: "CONTAINER_NOT_FOUND" }, method);
  }
  await assert.rejects(createContainer(link, "../x", ["true"]), { reason: "INVALID_ARGUMENT" });
  await assert.rejects(link.call("createContainer", { containerId: "c1" }), { reason: "INVALID_ARGUMENT" });
  const rootfs = { layers: [{ serial: "l" }], writable: { serial: "w" } };
  const garbage = { containerId: "c1", specJson: Buffer.from("{"), rootfs };
  await assert.rejects(link.call("createContainer", garbage), { reason: "INVALID_ARGUMENT" });
  await createContainer(link, "c1", shell("kill -9 $$"));
  await assert.rejects(createContainer(link, "c1", ["true"]), { reason: "CONTAINER_EXISTS" });
  await assert.rejects(
    link.call("execProcess", { containerId: "c1", processId: "e1", processJson: Buffer.from("{}") }),
    {
      reason: "INVALID_TRANSITION",
    },
  );
  await assert.rejects(link.call("waitProcess", init), { reason: "PROCESS_NOT_FOUND" });
  await link.call("startContainer", { containerId: "c1" });
  await assert.rejects(link.call("startContainer", { containerId: "c1" }), { reason: "INVALID_TRANSITION" });
  await assert.rejects(link.call("readOutput", { ...init, stream: 3 }), { reason: "INVALID_ARGUMENT" });
  const end = await link.call("waitProcess", { ...init, waitMs: 10_000 });
  assert.deepEqual([end.ended, end.exitCode, end.signal], [true, 137, 9]);
  // The process is gone: a signal for it is success.
  await link.call("signalProcess", { ...init, signal: 15 });
  await assert.rejects(link.call("signalProcess", { ...init, signal: 65 }), { reason: "INVALID_ARGUMENT" });
  await link.close();
});

test("a command that does not exist fails the start, and the container can be started again", async () => {
  await using agent = await startHostAgent();
  const link = await connect(agent);
  await createContainer(link, "c1", ["/no/such/program"]);
  await assert.rejects(link.call("startContainer", { containerId: "c1" }), { reason: "COMMAND_NOT_FOUND" });
  await assert.rejects(link.call("startContainer", { containerId: "c1" }), { reason: "COMMAND_NOT_FOUND" });
  await link.call("removeContainer", { containerId: "c1" });
  assert.deepEqual(await readdir(join(agent.dir, "containers")), []);
  await link.close();
});

test("a container that is removed in the middle of its start is gone afterwards", async () => {
  await using agent = await startHostAgent();
  const link = await connect(agent);
  await createContainer(link, "c1", ["sleep", "1000"]);
  const standing = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  agent.runtime.beforeLaunch = async () => {
    standing.resolve();
    await goOn.promise;
  };
  const starting = link.call("startContainer", { containerId: "c1" });
  await standing.promise;
  const removing = link.call("removeContainer", { containerId: "c1" });
  goOn.resolve();
  const { pid } = await starting;
  await removing;
  assert.equal(await identifyProcess(pid), undefined);
  await assert.rejects(link.call("waitProcess", init), { reason: "CONTAINER_NOT_FOUND" });
  await link.close();
});

test("a further process runs beside the first, with its own streams", async () => {
  await using agent = await startHostAgent();
  const link = await started(agent, ["sleep", "1000"]);
  const processJson = Buffer.from(JSON.stringify({ args: shell("cat; exit 3"), env: ["PATH=/usr/bin:/bin"] }));
  await link.call("execProcess", { containerId: "c1", processId: "e1", processJson, stdin: true });
  const address = { containerId: "c1", processId: "e1" };
  const input = new InputWriter(link, address);
  await input.write(Buffer.from("abc"));
  await input.end();
  const output = outputStream(link, address, { stream: 1 });
  assert.equal(await new Response(output).text(), "abc");
  assert.equal((await link.call("waitProcess", { ...address, waitMs: 10_000 })).exitCode, 3);
  await assert.rejects(link.call("execProcess", { ...address, processJson }), { reason: "INVALID_ARGUMENT" });
  await link.call("signalProcess", { ...init, signal: 15 });
  assert.equal((await link.call("waitProcess", { ...init, waitMs: 10_000 })).exitCode, 143);
  await link.close();
});

test("processes that were released leave nothing in the agent's memory", async () => {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  assert.ok(typeof collect === "function");
  await using agent = await startHostAgent();
  const link = await started(agent, ["/bin/sleep", "600"]);
  const runOne = async (processId: string): Promise<void> => {
    await execProcess(link, "c1", processId, ["/bin/echo", "hi"]);
    await link.call("waitProcess", { containerId: "c1", processId, waitMs: 10_000 });
    await link.call("releaseProcess", { containerId: "c1", processId });
  };
  const used = (): number => {
    collect();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const few = 20;
  const many = 100;
  for (let n = 0; n < few; n += 1) await runOne(`warm-${n}`);
  const before = used();
  for (let n = 0; n < many; n += 1) await runOne(`more-${n}`);
  // Each has two rings; the rest is noise of the collector.
  const keptBytes = (used() - before) / many;
  assert.ok(keptBytes < streamLimits.ringBytes / 4, `${keptBytes} bytes are kept of each process`);
  await link.call("removeContainer", { containerId: "c1" });
  await link.close();
});
