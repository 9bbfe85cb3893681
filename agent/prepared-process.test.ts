/** A process that waits for its command, played by a script that starts the command instead of becoming it. The real one has a test in a VM. */
import assert from "node:assert/strict";
import { chmod, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { AgentClient } from "../src/agent-client/index.ts";
import { until } from "../test/support/until.ts";
import { encodeCommand } from "./prepared-process.ts";
import { clientOf, createContainer, shell, WAIT_MS } from "./testing/calls.ts";
import { type HostAgent, startHostAgent } from "./testing/host-agent.ts";

const CONTAINER = { containerId: "c1" };

/** Reads one message as the program does, and refuses a command named `refused`. */
const PLAYER = `#!${process.execPath}
import { spawnSync } from "node:child_process";
import { Socket } from "node:net";
const line = new Socket({ fd: 4 });
let bytes = Buffer.alloc(0);
line.on("end", () => process.exit(1));
line.on("data", (more) => {
  bytes = Buffer.concat([bytes, more]);
  if (bytes.length < 4 || bytes.length < 4 + bytes.readUInt32LE(0)) return;
  const strings = bytes.subarray(12, 4 + bytes.readUInt32LE(0)).toString().split("\\0").slice(0, -1);
  const count = bytes.readUInt32LE(4);
  const [cwd, command, ...args] = strings.slice(0, 1 + count);
  const env = Object.fromEntries(strings.slice(1 + count).map((each) => each.split("=")));
  line.write(command === "refused" ? "-" : "+", () => {
    if (command === "refused") process.exit(1);
    const stdio = [bytes.readUInt32LE(8) === 1 ? 0 : "ignore", 1, 2];
    process.exit(spawnSync(command, args, { cwd, env, stdio }).status);
  });
});
`;

interface Setup extends AsyncDisposable {
  readonly agent: HostAgent;
  readonly client: AgentClient;
}

/** With a container that runs, and has a process that waits. */
async function setUp(t: TestContext): Promise<Setup> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-prepared-"));
  t.after(async () => await rm(dir, { recursive: true, force: true }));
  const preparedProgram = join(dir, "prepared.mjs");
  await writeFile(preparedProgram, PLAYER);
  await chmod(preparedProgram, 0o755);
  const agent = await startHostAgent({ preparedProgram });
  const client = clientOf(agent);
  await createContainer(client, CONTAINER.containerId, ["sleep", "1000"]);
  await client.call("startContainer", CONTAINER);
  await client.call("prepareProcess", CONTAINER);
  return {
    agent,
    client,
    async [Symbol.asyncDispose]() {
      await client.call("removeContainer", CONTAINER);
      await client.close();
      await agent[Symbol.asyncDispose]();
    },
  };
}

interface Ended {
  readonly pid: number;
  readonly output: string;
  readonly exitCode: number;
}

async function run(client: AgentClient, processId: string, process: object, more: object = {}): Promise<Ended> {
  const address = { ...CONTAINER, processId };
  const processJson = Buffer.from(JSON.stringify({ env: ["PATH=/usr/bin:/bin"], cwd: "/", ...process }));
  const { pid } = await client.call("execProcess", { ...address, processJson, ...more });
  const { exitCode } = await client.call("waitProcess", { ...address, waitMs: WAIT_MS });
  const { data } = await client.call("readOutput", { ...address, stream: 1, maxBytes: 4096 });
  return { pid, output: Buffer.from(data).toString(), exitCode };
}

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test("the next command is the process that waited; the one after it is started as ever", async (t) => {
  await using setup = await setUp(t);
  const { agent, client } = setup;
  const waiting = agent.runtime.lastPid;
  // One is enough.
  await client.call("prepareProcess", CONTAINER);
  assert.equal(agent.runtime.lastPid, waiting);
  const command = {
    args: shell('echo "$WORD $PWD"; wc -c; exit 7'),
    env: ["PATH=/usr/bin:/bin", "WORD=a word"],
    cwd: "/tmp",
  };
  assert.deepEqual(await run(client, "e1", command), { pid: waiting, output: "a word /tmp\n0\n", exitCode: 7 });
  const launches = agent.runtime.launches;
  const second = await run(client, "e2", { args: ["echo", "second"] });
  assert.deepEqual([second.output, second.exitCode], ["second\n", 0]);
  assert.notEqual(second.pid, waiting);
  assert.equal(agent.runtime.launches, launches + 1);
  // And another one may wait.
  await client.call("prepareProcess", CONTAINER);
  const third = agent.runtime.lastPid;
  assert.equal((await run(client, "e3", { args: ["echo", "third"] })).pid, third);
});

test("what is written to its input gets there", async (t) => {
  await using setup = await setUp(t);
  const { agent, client } = setup;
  const waiting = agent.runtime.lastPid;
  const address = { ...CONTAINER, processId: "e1" };
  const ended = run(client, "e1", { args: ["head", "-n", "1"] }, { stdin: true });
  await until(async () => {
    const state = await client
      .call("writeInput", { ...address, offset: 0n, data: Buffer.from("typed\n") })
      .catch(() => undefined);
    return state?.accepted === 6n;
  });
  assert.deepEqual(await ended, { pid: waiting, output: "typed\n", exitCode: 0 });
});

test("a command that it cannot become is started as ever, and what cannot be started is told as ever", async (t) => {
  await using setup = await setUp(t);
  const { agent, client } = setup;
  const waiting = agent.runtime.lastPid;
  await assert.rejects(run(client, "e1", { args: ["refused"] }), { reason: "COMMAND_NOT_FOUND" });
  await until(() => !isThere(waiting));
  assert.equal((await run(client, "e1", { args: ["echo", "on"] })).output, "on\n");
});

test("a command that is too long for it is started as ever, and so is one when it has ended", async (t) => {
  await using setup = await setUp(t);
  const { agent, client } = setup;
  const waiting = agent.runtime.lastPid;
  const long = "x".repeat(100_000);
  assert.equal((await run(client, "e1", { args: ["expr", "length", long] })).output, "100000\n");
  process.kill(waiting, "SIGKILL");
  await until(() => !isThere(waiting));
  assert.equal((await run(client, "e2", { args: ["echo", "on"] })).output, "on\n");
});

test("who is to be set up otherwise does not get it: another user, other rights, another umask, a relative command", async (t) => {
  await using setup = await setUp(t);
  const { agent, client } = setup;
  const waiting = agent.runtime.lastPid;
  const others = [
    [{ args: ["echo", "x"] }, { user: "1000" }],
    [{ args: ["echo", "x"], noNewPrivileges: true }, {}],
    [{ args: ["echo", "x"], user: { umask: 63 } }, {}],
    [{ args: ["echo", "x"], rlimits: [{ type: "RLIMIT_NOFILE", soft: 9, hard: 9 }] }, {}],
  ] as const;
  for (const [index, [process, more]] of others.entries()) {
    const { pid, output } = await run(client, `e${index}`, process, more);
    assert.notEqual(pid, waiting);
    assert.equal(output, "x\n");
  }
  for (const name of ["./refused", "refused/x", ".refused"]) {
    await assert.rejects(run(client, "relative", { args: [name] }), { reason: "COMMAND_NOT_FOUND" });
  }
  assert.equal((await run(client, "last", { args: ["echo", "x"] })).pid, waiting);
});

test("it ends with its container, and no descriptor stays", async (t) => {
  const setup = await setUp(t);
  const { agent, client } = setup;
  const waiting = agent.runtime.lastPid;
  const open = async (): Promise<number> => (await readdir("/proc/self/fd")).length;
  const before = await open();
  await client.call("removeContainer", CONTAINER);
  assert.equal(isThere(waiting), false);
  // Its line, and both ends of three pipes; and the agent's ends of the first process's two outputs.
  await until(async () => (await open()) <= before - 9);
  await setup[Symbol.asyncDispose]();
});

test("none waits in a container that does not run", async (t) => {
  await using setup = await setUp(t);
  const { client } = setup;
  await createContainer(client, "c2", ["true"]);
  await assert.rejects(client.call("prepareProcess", { containerId: "c2" }), { reason: "INVALID_TRANSITION" });
  await assert.rejects(client.call("prepareProcess", { containerId: "c3" }), { reason: "CONTAINER_NOT_FOUND" });
  await client.call("removeContainer", { containerId: "c2" });
});

test("a command that is not plain has no message", () => {
  assert.ok(encodeCommand({ args: ["a"], env: [], cwd: "/" }, false) !== undefined);
  for (const odd of [
    { args: [], env: [], cwd: "/" },
    { args: ["a"], env: [], cwd: undefined },
    { args: ["a", 1], env: [], cwd: "/" },
    { args: ["a\0b"], env: [], cwd: "/" },
    { args: ["a"], env: Array.from({ length: 5000 }, () => "A=1"), cwd: "/" },
  ]) {
    assert.equal(encodeCommand(odd, false), undefined);
  }
});
