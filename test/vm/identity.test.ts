/**
 * Who a sandbox is after it was saved, restored or forked, as programs in its containers see it: in one guest whose agent is told
 * what it is told in a copy, and in forks of a sandbox.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { machineIdOf, silentLog } from "../../src/base/index.ts";
import { Runtime, resolvePaths, type SandboxHandle } from "../../src/sdk/index.ts";
import { TestGuest } from "../support/guest.ts";
import { type TestScope, tempDir, test } from "../support/harness.ts";

const WAIT_MS = 20_000;
const FIRST = "0123456789ab";
const SECOND = "ba9876543210";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

test("who a sandbox is, as its containers see it", async (t) => {
  const guest = await TestGuest.boot(t);
  const { agent } = guest;
  await agent.call("configureSandbox", { hostname: "jar", sandboxId: FIRST, entropy: randomBytes(64) });
  await guest.run("one", { keepAlive: true, command: ["unused"] });
  for (const part of [atFirst, copied, watched, hooks, starts]) {
    const startedMs = performance.now();
    await part(guest);
    t.diagnostic(`${part.name}: ${Math.round(performance.now() - startedMs)} ms`);
  }
  const times: Record<"freeze" | "thaw", number[]> = { freeze: [], thaw: [] };
  for (let round = 0; round < 20; round += 1) {
    const beginMs = performance.now();
    await agent.call("freeze", {});
    const frozenMs = performance.now();
    await agent.call("thaw", { event: "resumed", sandboxId: SECOND, generation: round });
    times.freeze.push(frozenMs - beginMs);
    times.thaw.push(performance.now() - frozenMs);
  }
  for (const [what, all] of Object.entries(times)) {
    const sorted = all.toSorted((a, b) => a - b).map((ms) => ms.toFixed(1));
    t.diagnostic(`${what}: ${sorted[0]} to ${sorted.at(-1)} ms, median ${sorted[10]} ms, n 20, with two containers`);
  }
});

async function linesOf(guest: TestGuest, script: string): Promise<readonly string[]> {
  return (await guest.shell("one", script)).stdout.trimEnd().split("\n");
}

async function ids(guest: TestGuest): Promise<{ machineId: string; bootId: string }> {
  const [machineId = "", bootId = ""] = await linesOf(guest, `cat /etc/machine-id ${BOOT_ID}`);
  return { machineId, bootId };
}

/** The files are there and cannot be changed; the boot id is not the kernel's. */
async function atFirst(guest: TestGuest): Promise<void> {
  const [event, generation, sandbox, time = ""] = await linesOf(guest, "cat /run/belljar/identity");
  assert.deepEqual([event, generation, sandbox], ["event=created", "generation=0", `sandbox=${FIRST}`]);
  assert.match(time, /^time=\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  const { machineId, bootId } = await ids(guest);
  assert.equal(machineId, machineIdOf(FIRST));
  assert.match(bootId, UUID);
  assert.deepEqual(await linesOf(guest, "sysctl -n kernel.random.boot_id"), [bootId]);
  const tried = `for f in /run/belljar/identity /run/belljar/new /etc/machine-id ${BOOT_ID}; do (echo x >$f) 2>/dev/null || echo no; done`;
  assert.deepEqual(await linesOf(guest, tried), ["no", "no", "no", "no"]);
  assert.deepEqual(await ids(guest), { machineId, bootId });
}

/** In a copy everything has another name before anything runs, and what somebody else had started is gone. */
async function copied(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  const before = await ids(guest);
  const [uuidBefore] = await linesOf(guest, "cat /proc/sys/kernel/random/uuid");
  await guest.spawn("one", ["sh", "-c", "sleep 5001 & sleep 5002"]);
  await guest.shell("one", "sleep 5003 >/dev/null 2>&1 &");
  const sleeping = async (): Promise<string> =>
    (await guest.shell("one", "ps -o args | grep -o '^sleep 500.' | sort | tr '\\n' ' '")).stdout;
  while ((await sleeping()) !== "sleep 5001 sleep 5002 sleep 5003 ");

  assert.deepEqual((await agent.call("freeze", {})).hookFailures, []);
  assert.deepEqual((await agent.call("freeze", {})).hookFailures, []);
  const realtimeNs = BigInt(Date.now()) * 1_000_000n;
  await agent.call("configureSandbox", { hostname: "jug", sandboxId: SECOND, realtimeNs, entropy: randomBytes(64) });
  const news = { event: "forked", sandboxId: SECOND, generation: 1, endProcesses: true };
  await assert.rejects(agent.call("thaw", { ...news, event: "melted" }), { reason: "INVALID_ARGUMENT" });
  assert.deepEqual((await agent.call("thaw", news)).hookFailures, []);
  assert.deepEqual((await agent.call("thaw", news)).hookFailures, []);

  assert.equal(await sleeping(), "sleep 5003 ");
  const { containers } = await agent.call("listContainers", {});
  assert.deepEqual(
    containers.map(({ processes }) => processes.map(({ processId }) => processId)),
    [[""]],
  );
  assert.deepEqual((await linesOf(guest, "cat /run/belljar/identity")).slice(0, 3), [
    "event=forked",
    "generation=1",
    `sandbox=${SECOND}`,
  ]);
  const after = await ids(guest);
  assert.equal(after.machineId, machineIdOf(SECOND));
  assert.match(after.bootId, UUID);
  assert.notEqual(after.bootId, before.bootId);
  assert.notDeepEqual(await linesOf(guest, "cat /proc/sys/kernel/random/uuid"), [uuidBefore]);
  assert.deepEqual(await linesOf(guest, "hostname; cat /etc/hostname; grep -c jug /etc/hosts"), ["jug", "jug", "1"]);

  // What the host says itself goes before what the agent makes of it.
  const said = { machineId: "f".repeat(32), bootId: "11111111-2222-4333-8444-555555555555" };
  await agent.call("freeze", {});
  await agent.call("thaw", { event: "restored", sandboxId: SECOND, generation: 2, ...said });
  assert.deepEqual(await ids(guest), said);
}

/** A program that watches the file, or its directory, is told. */
async function watched(guest: TestGuest): Promise<void> {
  const script = `
    const fs = require("fs");
    const show = (how) => {
      const lines = fs.readFileSync("/run/belljar/identity", "utf8").split("\\n");
      if (lines[1] === "generation=3") console.log(how, ...lines.slice(0, 2));
    };
    fs.watch("/run/belljar/identity", () => show("file"));
    fs.watch("/run/belljar", (_, name) => show(name));
    console.log("ready");`;
  await guest.run("watcher", { image: "node", command: ["node", "-e", script] });
  const address = { containerId: "watcher", processId: "", stream: 1, maxBytes: 65_536 };
  let text = "";
  let offset = 0n;
  const until = async (pattern: RegExp): Promise<void> => {
    while (!pattern.test(text)) {
      const { data, end } = await guest.agent.call("readOutput", { ...address, offset, waitMs: WAIT_MS });
      assert.ok(!end, text);
      text += Buffer.from(data).toString();
      offset += BigInt(data.length);
    }
  };
  await until(/^ready$/m);
  await guest.agent.call("freeze", {});
  await guest.agent.call("thaw", { event: "resumed", sandboxId: SECOND, generation: 3 });
  await until(/^file event=resumed generation=3$/m);
  await until(/^identity event=resumed generation=3$/m);
}

/** Programs of the container are run at their moments; what fails is told, and holds up nothing. */
async function hooks(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  const write = (name: string, body: string): string =>
    `printf '#!/bin/sh\\n%s\\n' '${body}' >/etc/belljar/hooks/${name}; chmod +x /etc/belljar/hooks/${name}`;
  const bodies = [
    write("before-save", "echo save >>/seen"),
    write("after-resume", "echo $BELLJAR_EVENT $BELLJAR_GENERATION $BELLJAR_SANDBOX >>/seen"),
    write("after-restore", "echo $BELLJAR_EVENT >>/seen; echo no keys >&2; exit 3"),
  ];
  await guest.shell("one", ["mkdir -p /etc/belljar/hooks", ...bodies].join("\n"));
  // Only to stand still for a while.
  await agent.call("freeze", {});
  await agent.call("thaw", { event: "resumed", sandboxId: SECOND, generation: 4 });
  assert.deepEqual((await agent.call("freeze", { saving: true })).hookFailures, []);
  const resumed = await agent.call("thaw", { event: "resumed", sandboxId: SECOND, generation: 4 });
  assert.deepEqual(resumed.hookFailures, []);
  await agent.call("freeze", { saving: true });
  const restored = await agent.call("thaw", { event: "restored", sandboxId: SECOND, generation: 5 });
  const failures = restored.hookFailures.map(({ containerId, hook, message }) => [containerId, hook, message]);
  assert.deepEqual(failures, [["one", "after-restore", "it ended with status 3: no keys"]]);
  const seen = ["save", `resumed 4 ${SECOND}`, "save", "restored"];
  assert.deepEqual(await linesOf(guest, "cat /seen; rm -r /seen /etc/belljar"), seen);
}

/** A start that is under way is over before everything stands still; one that comes later waits. */
async function starts(guest: TestGuest): Promise<void> {
  const { agent } = guest;
  const before = guest.shell("one", "echo before");
  const frozen = agent.call("freeze", {});
  await frozen;
  const during = guest.shell("one", "echo during");
  const thawed = agent.call("thaw", { event: "resumed", sandboxId: SECOND, generation: 6 });
  assert.deepEqual([(await before).stdout, (await during).stdout], ["before\n", "during\n"]);
  await thawed;
}

/** Draws, runs on, and says who it is whenever it is told, and what it draws then. */
const WATCHER = `
  const { readFileSync, watch } = require("fs");
  const { randomBytes, randomUUID } = require("crypto");
  randomUUID();
  const say = () => {
    const [event, generation, sandbox] = readFileSync("/run/belljar/identity", "utf8").split("\\n");
    console.log(event, generation, sandbox, require("os").hostname());
    console.log("drew", randomBytes(16).toString("hex"));
  };
  watch("/run/belljar/identity", say);
  say();`;

/** What must be another value in each copy, a line each, drawn by programs that start now. */
const LOOK = `
  const { readFileSync, openSync, readSync } = require("fs");
  const bytes = Buffer.alloc(16);
  readSync(openSync("/dev/urandom"), bytes);
  const files = ["/proc/sys/kernel/random/uuid", "/proc/sys/kernel/random/boot_id", "/etc/machine-id", "/etc/hostname"];
  const values = [bytes.toString("hex"), require("crypto").randomUUID(), ...files.map((path) => readFileSync(path, "utf8"))];
  console.log([...values, require("os").hostname() + "!"].map((value) => value.trim()).join(" "));`;

const HOOK = "#!/bin/sh\\n[ ! -e /broken ] && echo $BELLJAR_EVENT $BELLJAR_GENERATION $BELLJAR_SANDBOX >/hooked\\n";

async function openRuntime(t: TestScope): Promise<Runtime> {
  const paths = resolvePaths({ root: await tempDir(t) }, { ...process.env, BELLJAR_RUN: await tempDir(t) }, 0);
  const shared = resolvePaths({}, process.env, 0);
  const runtime = await Runtime.open({ paths: { ...paths, templates: shared.templates }, log: silentLog });
  t.after(async () => {
    for (const { id } of await runtime.sandboxes.list())
      await (await runtime.sandboxes.get(id)).delete({ force: true });
    await runtime[Symbol.asyncDispose]();
  });
  return runtime;
}

/** Waits for a line of what its first process writes; answers the next one. */
async function untilSaid(sandbox: SandboxHandle, line: string): Promise<string> {
  let text = "";
  const signal = AbortSignal.timeout(60_000);
  for await (const { data } of sandbox.main.logs({ follow: true, signal })) {
    text += Buffer.from(data).toString();
    const lines = text.split("\n").slice(0, -1);
    const next = lines[lines.indexOf(line) + 1];
    if (lines.includes(line) && next !== undefined) return next;
  }
  assert.fail(`${line} is not in ${text}`);
}

test("forks are not their source, nor one another", async (t) => {
  const runtime = await openRuntime(t);
  const source = await runtime.sandboxes.create({ image: "node", container: { command: ["node", "-e", WATCHER] } });
  const { id } = source;
  await untilSaid(source, `event=created generation=0 sandbox=${id} ${id}`);
  const hook = "/etc/belljar/hooks/after-restore";
  await source.exec(["sh", "-c", `mkdir -p /etc/belljar/hooks; printf '${HOOK}' >${hook}; chmod +x ${hook}`]);
  const waiting = await source.spawn(["sleep", "1000"]);

  const forks = await source.fork({ count: 2 });
  const values: string[] = [];
  for (const each of [source, ...forks]) {
    const isSource = each === source;
    const drawn = await untilSaid(
      each,
      isSource
        ? `event=resumed generation=0 sandbox=${id} ${id}`
        : `event=forked generation=1 sandbox=${each.id} ${each.id}`,
    );
    assert.match(drawn, /^drew /);
    const { stdout, exitCode } = await each.exec(["node", "-e", LOOK]);
    assert.equal(exitCode, 0);
    values.push(drawn, ...stdout.trim().split(" "));
    assert.equal(values.at(-1), `${each.id}!`);
    const processes = await each.main.processes();
    assert.deepEqual(
      processes.map((one) => one.id),
      isSource ? ["", waiting.id] : [""],
    );
    const hooked = await each.exec(["cat", "/hooked"]);
    assert.equal(hooked.stdout, isSource ? "" : `forked 1 ${each.id}\n`);
  }
  assert.equal(values.length, 3 * 8);
  assert.equal(new Set(values).size, values.length, values.join(" "));

  // One that could not renew what it must does not live; nobody else notices.
  await source.exec(["touch", "/broken"]);
  const before = (await runtime.sandboxes.list()).length;
  await assert.rejects(source.fork(), { reason: "HOOK_FAILED" });
  assert.equal((await runtime.sandboxes.list()).length, before);
  assert.equal((await source.info()).state, "running");
});
