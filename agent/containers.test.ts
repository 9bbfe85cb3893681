/** Containers and processes as an owner sees them that comes, goes, and comes again; with plain processes in their place. */
import assert from "node:assert/strict";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { ContainerPhase } from "../src/protocol/index.ts";
import { clientOf, createContainer, execProcess, shell, WAIT_MS } from "./testing/calls.ts";
import { startHostAgent } from "./testing/host-agent.ts";

test("an owner that comes later finds every container, its processes, and how they ended", async () => {
  await using agent = await startHostAgent();
  const first = clientOf(agent);
  assert.deepEqual((await first.call("listContainers", {})).containers, []);
  await createContainer(first, "ready", ["true"]);
  await createContainer(first, "runs", ["sleep", "1000"]);
  await createContainer(first, "over", shell("exit 4"));
  const { pid } = await first.call("startContainer", { containerId: "runs", stdin: true });
  await first.call("startContainer", { containerId: "over" });
  await execProcess(first, "runs", "e1", shell("exit 5"));
  await first.call("waitProcess", { containerId: "over", waitMs: WAIT_MS });
  await first.call("waitProcess", { containerId: "runs", processId: "e1", waitMs: WAIT_MS });
  await first.close();

  const second = clientOf(agent);
  const { containers } = await second.call("listContainers", {});
  assert.deepEqual(
    containers.map(({ containerId, phase }) => [containerId, phase]),
    [
      ["ready", ContainerPhase.READY],
      ["runs", ContainerPhase.RUNNING],
      ["over", ContainerPhase.STOPPED],
    ],
  );
  const processes = containers.flatMap((one) => one.processes);
  assert.deepEqual(
    processes.map(({ processId, stdin, terminal, end }) => [processId, stdin, terminal, end?.ended, end?.exitCode]),
    [
      ["", true, false, false, 0],
      ["e1", false, false, true, 5],
      ["", false, false, true, 4],
    ],
  );
  assert.equal(processes[0]?.pid, pid);
  assert.ok(processes.every(({ startedAtNs }) => startedAtNs > 0n));
  await second.call("removeContainer", { containerId: "runs" });
  await second.close();
});

test("the list waits for a start under way, so what it tells is settled", async () => {
  await using agent = await startHostAgent();
  const client = clientOf(agent);
  await createContainer(client, "c1", ["/no/such/program"]);
  const goOn = Promise.withResolvers<void>();
  agent.runtime.beforeLaunch = () => goOn.promise;
  const failing = assert.rejects(client.call("startContainer", { containerId: "c1" }), { reason: "COMMAND_NOT_FOUND" });
  const listing = client.call("listContainers", {});
  goOn.resolve();
  await failing;
  assert.deepEqual(
    (await listing).containers.map(({ phase, processes }) => [phase, processes.length]),
    [[ContainerPhase.READY, 0]],
  );
  await client.close();
});

test("a process is released once it has ended; its container stays stopped", async () => {
  await using agent = await startHostAgent();
  const client = clientOf(agent);
  await createContainer(client, "c1", ["cat"]);
  await client.call("startContainer", { containerId: "c1", stdin: true });
  await assert.rejects(client.call("releaseProcess", { containerId: "c1" }), { reason: "INVALID_TRANSITION" });
  await execProcess(client, "c1", "e1", ["true"]);
  const e1 = { containerId: "c1", processId: "e1" };
  await client.call("waitProcess", { ...e1, waitMs: WAIT_MS });
  await client.call("releaseProcess", e1);
  await client.call("releaseProcess", e1);
  await client.call("releaseProcess", { containerId: "nope", processId: "e1" });
  await assert.rejects(client.call("readOutput", { ...e1, stream: 1 }), { reason: "PROCESS_NOT_FOUND" });
  // Its id is free again.
  await execProcess(client, "c1", "e1", ["true"]);
  await client.call("writeInput", { containerId: "c1", end: true });
  await client.call("waitProcess", { containerId: "c1", waitMs: WAIT_MS });
  await client.call("releaseProcess", { containerId: "c1" });
  const { containers } = await client.call("listContainers", {});
  assert.equal(containers[0]?.phase, ContainerPhase.STOPPED);
  for (const method of ["startContainer", "pauseContainer", "resumeContainer", "updateContainer"] as const) {
    await assert.rejects(client.call(method, { containerId: "c1" }), { reason: "INVALID_TRANSITION" }, method);
  }
  await client.close();
});

test("when there are as many processes as there may be, the one that ended first is forgotten", async () => {
  await using agent = await startHostAgent({ processesMax: 3 });
  const client = clientOf(agent);
  await createContainer(client, "c1", ["sleep", "1000"]);
  await client.call("startContainer", { containerId: "c1" });
  for (const processId of ["e1", "e2", "e3"]) {
    await execProcess(client, "c1", processId, ["true"]);
    await client.call("waitProcess", { containerId: "c1", processId, waitMs: WAIT_MS });
  }
  const ids = async (): Promise<(string | undefined)[]> =>
    (await client.call("listContainers", {})).containers.flatMap((one) => one.processes.map((each) => each.processId));
  assert.deepEqual(await ids(), ["", "e2", "e3"]);
  await execProcess(client, "c1", "e4", ["sleep", "1000"]);
  await execProcess(client, "c1", "e5", ["sleep", "1000"]);
  assert.deepEqual(await ids(), ["", "e4", "e5"]);
  await assert.rejects(execProcess(client, "c1", "e6", ["true"]), { reason: "AGENT_FAILED" });
  await client.call("signalProcess", { containerId: "c1", processId: "e4", signal: 9 });
  await client.call("signalProcess", { containerId: "c1", processId: "e5", signal: 9 });
  await client.call("removeContainer", { containerId: "c1" });
  await client.close();
});

test("a signal for what is gone, or has not come yet, is success", async () => {
  await using agent = await startHostAgent();
  const client = clientOf(agent);
  await createContainer(client, "c1", ["sleep", "1000"]);
  await client.call("signalProcess", { containerId: "c1", signal: 15 });
  await client.call("signalProcess", { containerId: "c1", signal: 9, all: true });
  await client.call("startContainer", { containerId: "c1" });
  await client.call("signalProcess", { containerId: "c1", processId: "unknown", signal: 15 });
  await execProcess(client, "c1", "e1", ["sleep", "1000"]);
  await client.call("signalProcess", { containerId: "c1", signal: 15, all: true });
  for (const processId of ["", "e1"]) {
    const end = await client.call("waitProcess", { containerId: "c1", processId, waitMs: WAIT_MS });
    assert.deepEqual([end.ended, end.signal], [true, 15], processId);
  }
  await client.call("signalProcess", { containerId: "c1", signal: 15, all: true });
  await assert.rejects(client.call("signalProcess", { containerId: "nope", signal: 9 }), {
    reason: "CONTAINER_NOT_FOUND",
  });
  await client.close();
});

test("what one owner read and did not acknowledge, the next one reads again", async () => {
  await using agent = await startHostAgent();
  const first = clientOf(agent);
  await createContainer(first, "c1", shell("printf 0123456789; read line; printf abcdef; exec sleep 1000"));
  await first.call("startContainer", { containerId: "c1", stdin: true });
  const address = { containerId: "c1", stream: 1, maxBytes: 100, waitMs: WAIT_MS };
  const text = ({ data }: { data: Uint8Array }): string => Buffer.from(data).toString();
  assert.equal(text(await first.call("readOutput", { ...address, offset: 0n })), "0123456789");
  // It waits for more, having acknowledged four bytes, when it dies.
  const abandoned = first.call("readOutput", { ...address, offset: 4n, follow: true }).catch(() => {});
  await first.call("listContainers", {});
  agent.port.cut();
  await abandoned;
  await first.close();

  const second = clientOf(agent);
  assert.equal(text(await second.call("readOutput", { ...address, offset: 4n })), "456789");
  await second.call("writeInput", { containerId: "c1", data: Buffer.from("\n") });
  const next = await second.call("readOutput", { ...address, offset: 10n });
  assert.deepEqual([next.offset, text(next)], [10n, "abcdef"]);
  const last = await second.call("readOutput", { ...address, offset: 12n });
  assert.deepEqual([last.offset, text(last)], [12n, "cdef"]);
  await second.call("removeContainer", { containerId: "c1" });
  await second.close();
});

test("pause, resume and update write the kernel's files, each as often as it is asked", async () => {
  await using agent = await startHostAgent();
  const client = clientOf(agent);
  const containerId = "c1";
  await createContainer(client, containerId, ["sleep", "1000"]);
  await client.call("updateContainer", { containerId, pids: 7 });
  await assert.rejects(client.call("pauseContainer", { containerId }), { reason: "INVALID_TRANSITION" });
  await client.call("startContainer", { containerId });
  const config = await readFile(join(agent.dir, "containers/c1/init/config.json"), "utf8");
  assert.match(config, /"pids":\{"limit":7\}/);

  const dir = join(agent.dir, "cgroup/belljar/c1");
  await mkdir(join(dir, "run"));
  await writeFile(join(dir, "cgroup.freeze"), "0");
  await writeFile(join(dir, "cgroup.events"), "frozen 1\n");
  await writeFile(join(dir, "run/pids.max"), "");
  await client.call("pauseContainer", { containerId });
  await client.call("pauseContainer", { containerId });
  assert.equal(await readFile(join(dir, "cgroup.freeze"), "utf8"), "1");
  await assert.rejects(execProcess(client, containerId, "e1", ["true"]), { reason: "INVALID_TRANSITION" });
  await client.call("updateContainer", { containerId, pids: 8 });
  assert.equal(await readFile(join(dir, "run/pids.max"), "utf8"), "8");
  await client.call("resumeContainer", { containerId });
  await client.call("resumeContainer", { containerId });
  assert.equal(await readFile(join(dir, "cgroup.freeze"), "utf8"), "0");
  const stats = await client.call("getContainerStats", { containerId });
  assert.equal(stats.pids?.limit, 8n);
  assert.ok(stats.network.some(({ name }) => name === "lo"));
  await client.call("signalProcess", { containerId, signal: 9 });
  await client.call("waitProcess", { containerId, waitMs: WAIT_MS });
  await client.close();
});

test("a pause that is repeated is answered when the first one is done", async () => {
  await using agent = await startHostAgent();
  const client = clientOf(agent);
  const containerId = "c1";
  await createContainer(client, containerId, ["sleep", "1000"]);
  await client.call("startContainer", { containerId });
  const dir = join(agent.dir, "cgroup/belljar/c1");
  await writeFile(join(dir, "cgroup.freeze"), "0");
  await writeFile(join(dir, "cgroup.events"), "frozen 0\n");
  const answered: string[] = [];
  const pause = async (name: string): Promise<void> => {
    await client.call("pauseContainer", { containerId });
    answered.push(name);
  };
  const pauses = [pause("first"), pause("second")];
  // By the time that this is answered, both are with the agent.
  await client.call("getGuestStats", {});
  assert.deepEqual(answered, []);
  await writeFile(join(dir, "cgroup.events"), "frozen 1\n");
  await Promise.all(pauses);
  assert.deepEqual(answered, ["first", "second"]);
  await client.call("signalProcess", { containerId, signal: 9 });
  // The kernel removes a group's files with it.
  await rm(dir, { recursive: true });
  await Promise.all([1, 2].map(() => client.call("removeContainer", { containerId })));
  await client.close();
});
