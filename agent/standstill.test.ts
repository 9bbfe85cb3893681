/** A whole agent that stands still and goes on, with plain processes in the place of containers, and files in that of cgroups. */
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { AgentClient } from "../src/agent-client/index.ts";
import { identifyProcess } from "../src/base/index.ts";
import { clientOf, createContainer, execProcess, shell, WAIT_MS } from "./testing/calls.ts";
import { type HostAgent, startHostAgent } from "./testing/host-agent.ts";

const containerId = "c1";
const RESUMED = { event: "resumed", sandboxId: "a1", generation: 0 };
const FORKED = { event: "forked", sandboxId: "b2", generation: 1, endProcesses: true };

/** A container that runs, in groups that are frozen when they are told to be. */
async function startContainer(agent: HostAgent): Promise<AgentClient> {
  const client = clientOf(agent);
  const { realtimeNs } = await client.call("configureSandbox", { sandboxId: "a1" });
  assert.ok(Math.abs(Number(realtimeNs) / 1e6 - Date.now()) < 10_000);
  await createContainer(client, containerId, ["sleep", "1000"]);
  await client.call("startContainer", { containerId });
  await writeFile(groupFile(agent, "cgroup.freeze"), "0");
  await writeFile(groupFile(agent, "cgroup.events"), "populated 1\nfrozen 1\n");
  return client;
}

function groupFile(agent: HostAgent, name: string): string {
  return join(agent.dir, "cgroup/belljar", name);
}

async function isFrozen(agent: HostAgent): Promise<boolean> {
  return (await readFile(groupFile(agent, "cgroup.freeze"), "utf8")) === "1";
}

async function event(agent: HostAgent): Promise<string> {
  return (await readFile(join(agent.dir, "identity/run/identity"), "utf8")).split("\n").slice(0, 3).join(" ");
}

async function processIds(client: AgentClient): Promise<readonly string[]> {
  const { containers } = await client.call("listContainers", {});
  return containers.flatMap(({ processes }) => processes.map(({ processId }) => processId));
}

async function end(client: AgentClient): Promise<void> {
  await client.call("signalProcess", { containerId, signal: 9 });
  await client.call("waitProcess", { containerId, waitMs: WAIT_MS });
  await client.close();
}

test("what stands still says how a copy is woken without the agent, which then only takes note of it", async () => {
  await using agent = await startHostAgent();
  const client = await startContainer(agent);
  await client.call("configureSandbox", { hostname: "jar", dnsLines: ["nameserver 10.0.0.2"] });
  await execProcess(client, containerId, "e1", shell("sleep 1000 & echo; wait"));
  // Both are there then.
  await client.call("readOutput", { containerId, processId: "e1", stream: 1, maxBytes: 1, waitMs: WAIT_MS });
  const { wake } = await client.call("freeze", { saving: true });
  const texts = new Map(wake?.files.map(({ path, text }) => [path.slice(path.lastIndexOf("/") + 1), text]));
  assert.deepEqual([...texts.keys()].sort(), ["boot_id", "hostname", "hosts", "identity", "machine-id", "resolv.conf"]);
  assert.match(texts.get("hosts") ?? "", /^127\.0\.0\.1\tlocalhost\n(?:.*\n)*127\.0\.1\.1\t\{hostname\}\n\{hosts\}$/);
  assert.equal(texts.get("resolv.conf"), "{dns}");
  assert.equal(texts.get("boot_id"), "{boot-id}\n");
  assert.equal(texts.get("identity"), "event={event}\ngeneration={generation}\nsandbox={sandbox}\ntime={time}\n");
  assert.deepEqual([wake?.thaw?.path, wake?.thaw?.text], [groupFile(agent, "cgroup.freeze"), "0"]);
  assert.equal(wake?.furtherPids.length, 2);
  const [present] = wake.interfaces;
  assert.deepEqual([present?.index, present?.name, present?.addresses], [2, "eth0", ["10.0.2.15/32"]]);
  // The program has written what it was told; the agent leaves it so.
  const path = join(agent.dir, "identity/run/identity");
  await writeFile(path, "as told\n");
  await client.call("thaw", { ...FORKED, toldAtMs: 1_700_000_000_000n });
  assert.equal(await readFile(path, "utf8"), "as told\n");
  assert.equal(await isFrozen(agent), false);
  assert.deepEqual(await processIds(client), [""]);
  await client.call("freeze", {});
  await client.call("thaw", { ...RESUMED, sandboxId: "b2", generation: 1 });
  assert.equal(await event(agent), "event=resumed generation=1 sandbox=b2");
  await end(client);
});

test("freeze and thaw may each be repeated, and a thaw says what has happened", async () => {
  await using agent = await startHostAgent();
  const client = await startContainer(agent);
  assert.equal(await event(agent), "event=created generation=0 sandbox=a1");
  for (const _ of [1, 2]) assert.deepEqual((await client.call("freeze", {})).hookFailures, []);
  assert.equal(await isFrozen(agent), true);
  await client.call("thaw", RESUMED);
  assert.equal(await isFrozen(agent), false);
  assert.equal(await event(agent), "event=resumed generation=0 sandbox=a1");
  await client.call("freeze", {});
  await assert.rejects(client.call("thaw", { ...FORKED, bootId: "x" }), { reason: "INVALID_ARGUMENT" });
  assert.equal(await isFrozen(agent), true);
  // Who it is is said with it, or before; one that cannot be is not thawed.
  const sandbox = { hostname: "jug", entropy: Buffer.alloc(8) };
  await assert.rejects(client.call("thaw", { ...FORKED, sandbox: { hostname: "/" } }), { reason: "INVALID_ARGUMENT" });
  assert.equal(await isFrozen(agent), true);
  const { realtimeNs } = await client.call("thaw", { ...FORKED, sandbox });
  assert.ok(Math.abs(Number(realtimeNs) / 1e6 - Date.now()) < 10_000);
  assert.equal(await readFile(join(agent.dir, "proc/sys/kernel/hostname"), "utf8"), "jug");
  await client.call("thaw", { ...FORKED, sandbox });
  // Nothing stood still: it goes on as who it is.
  await client.call("thaw", RESUMED);
  assert.equal(await event(agent), "event=forked generation=1 sandbox=b2");
  assert.equal(await isFrozen(agent), false);
  await end(client);
});

test("in a copy, what somebody else had started ends with what came from it, and is forgotten", async () => {
  await using agent = await startHostAgent();
  const client = await startContainer(agent);
  await execProcess(client, containerId, "e1", shell("sleep 1001 & echo $! $$; wait"));
  await execProcess(client, containerId, "e2", shell("exit 5"));
  const { data } = await client.call("readOutput", {
    containerId,
    processId: "e1",
    stream: 1,
    maxBytes: 100,
    waitMs: WAIT_MS,
  });
  const pids = Buffer.from(data).toString().trim().split(" ").map(Number);
  await client.call("waitProcess", { containerId, processId: "e2", waitMs: WAIT_MS });
  await client.call("freeze", {});
  await client.call("thaw", { ...FORKED, endProcesses: false });
  assert.deepEqual(await processIds(client), ["", "e1", "e2"]);
  await client.call("freeze", {});
  await client.call("thaw", { ...FORKED, generation: 2 });
  assert.deepEqual(await processIds(client), [""]);
  assert.equal(pids.length, 2);
  for (const pid of pids) {
    while ((await identifyProcess(pid)) !== undefined) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await end(client);
});

test("starts under way are waited for; later ones wait, and never come for a host that has gone", async () => {
  await using agent = await startHostAgent();
  const client = await startContainer(agent);
  const standing = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  agent.runtime.beforeLaunch = async () => {
    standing.resolve();
    await goOn.promise;
  };
  const early = execProcess(client, containerId, "early", ["sleep", "1000"]);
  await standing.promise;
  let answered = false;
  const frozen = client.call("freeze", {}).then(() => {
    answered = true;
  });
  await client.call("getGuestStats", {});
  assert.equal(answered, false);
  goOn.resolve();
  await Promise.all([early, frozen]);

  const late = execProcess(client, containerId, "late", ["sleep", "1000"]).catch((error: unknown) => error);
  await client.call("getGuestStats", {});
  assert.deepEqual(await processIds(client), ["", "early"]);
  // In a copy: another host comes, and nobody waits for the old calls.
  agent.port.cut();
  await late;
  const other = clientOf(agent);
  await other.call("thaw", FORKED);
  assert.deepEqual(await processIds(other), [""]);

  await other.call("freeze", {});
  const waiting = execProcess(other, containerId, "waiting", ["sleep", "1000"]);
  await other.call("getGuestStats", {});
  assert.deepEqual(await processIds(other), [""]);
  await other.call("thaw", RESUMED);
  await waiting;
  assert.deepEqual(await processIds(other), ["", "waiting"]);
  await client.close();
  await other.call("signalProcess", { containerId, processId: "waiting", signal: 9 });
  await end(other);
});

test("a sandbox that cannot be frozen goes on as before", async () => {
  await using agent = await startHostAgent();
  const client = await startContainer(agent);
  await writeFile(groupFile(agent, "cgroup.events"), "");
  await assert.rejects(client.call("freeze", {}, { timeoutMs: 200 }), { reason: "AGENT_TIMEOUT" });
  await execProcess(client, containerId, "e1", shell("exit 0"));
  assert.equal(await isFrozen(agent), false);
  assert.equal(await event(agent), "event=created generation=0 sandbox=a1");
  await end(client);
});

test("what stands still goes on doing so while something else is rehearsed in its guest", async () => {
  await using agent = await startHostAgent();
  const client = await startContainer(agent);
  const own = join(agent.dir, "cgroup/belljar", containerId);
  await mkdir(own, { recursive: true });
  await writeFile(join(own, "cgroup.freeze"), "0");
  await writeFile(join(own, "cgroup.events"), "populated 1\nfrozen 1\n");
  const state = async (): Promise<string> => {
    const self = await readFile(join(own, "cgroup.freeze"), "utf8");
    return `${(await isFrozen(agent)) ? "all" : "none"} ${self}`;
  };
  await assert.rejects(client.call("rehearse", {}), { reason: "INVALID_ARGUMENT" });
  await client.call("freeze", { saving: true });
  for (let turn = 0; turn < 2; turn += 1) {
    await client.call("rehearse", {});
    await client.call("rehearse", {});
    assert.equal(await state(), "none 1");
    await createContainer(client, "other", ["sleep", "1000"]);
    await client.call("startContainer", { containerId: "other" });
    // It is told who it may become, and does not go on for that.
    await client.call("thaw", { ...FORKED, toldAtMs: 1_700_000_000_000n, endProcesses: false });
    assert.equal(await state(), "none 1");
    await client.call("signalProcess", { containerId: "other", signal: 9 });
    await client.call("waitProcess", { containerId: "other", waitMs: WAIT_MS });
    await client.call("removeContainer", { containerId: "other" });
    await client.call("rehearse", { over: true });
    await client.call("rehearse", { over: true });
    assert.equal(await state(), "all 0");
  }
  await client.call("thaw", FORKED);
  assert.equal(await state(), "none 0");
  assert.equal(await event(agent), "event=forked generation=1 sandbox=b2");
  await execProcess(client, containerId, "e1", ["true"]);
  await end(client);
});
