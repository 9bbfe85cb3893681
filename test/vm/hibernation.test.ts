/** Sandboxes that have no VM while nobody wants anything of them, as users see them: from the command line, over real networks. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { openEmbedded } from "../support/embedded.ts";
import { type CliResult, runCli, type TestScope, test } from "../support/harness.ts";
import { type NetworkHost, networkHost } from "../support/network-host.ts";

type Cli = (...args: readonly string[]) => Promise<CliResult>;

async function setUp(t: TestScope): Promise<{ readonly host: NetworkHost; readonly cli: Cli }> {
  const host = await networkHost(t);
  return { host, cli: (...args) => runCli(t, args, { within: host.within }) };
}

async function output(result: Promise<CliResult>): Promise<string> {
  const { status, stdout, stderr } = await result;
  assert.equal(status, 0, stderr);
  return stdout.toString().trim();
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (const endMs = performance.now() + 60_000; !(await isSo()); await sleep(200)) {
    assert.ok(performance.now() < endMs, `it did not come to it: ${what}`);
  }
}

/** Counts in memory: what it has forgotten shows. */
const server = [
  "node",
  "-e",
  'let n = 0; require("http").createServer((q, r) => r.end(`${(n += 1)}\\n`)).listen(80); console.log("up");',
];

test("an idle sandbox has no VM, and wakes in place at its port, for exec and for cp, whoever its owner is", async (t) => {
  const { host, cli } = await setUp(t);
  const options = ["--network", "user", "-p", "127.0.0.1:8080:80", "--idle-timeout", "3s"];
  const id = await output(cli("run", "-d", "--name", "web", ...options, "node", ...server));
  const inspect = async (): Promise<{
    state: string;
    vmm?: { pid: number };
    ports: { hostPort: number }[];
    id: string;
  }> => JSON.parse(await output(cli("inspect", "--json", "web")));
  const isHibernated = async (): Promise<boolean> => (await inspect()).state === "hibernated";
  const get = (): Promise<string | undefined> => host.run("curl", "-sS", "-m", "60", "http://127.0.0.1:8080/");
  await until("it serves", async () => (await get()) === "1\n");
  const { vmm } = await inspect();
  const child = await output(
    cli("exec", "web", "sh", "-c", "echo kept > /tmp/kept; sleep 10000 > /dev/null 2>&1 & echo $!"),
  );

  await until("it hibernates", isHibernated);
  const asleep = await inspect();
  assert.deepEqual([asleep.id, asleep.vmm, asleep.ports[0]?.hostPort], [id, undefined, 8080]);
  await assert.rejects(readFile(`/proc/${vmm?.pid}/stat`), { code: "ENOENT" });
  assert.match(await output(cli("ps")), /hibernated/);
  assert.match(await output(cli("logs", "web")), /^up$/m);
  assert.ok(await isHibernated(), "who looks does not wake it");
  const beganMs = performance.now();
  assert.equal(await get(), "2\n");
  t.diagnostic(`from a connection to its answer: ${Math.round(performance.now() - beganMs)} ms`);
  assert.equal((await inspect()).state, "running");

  await until("it hibernates again", isHibernated);
  const { pid } = JSON.parse(await output(cli("daemon", "status", "--json")));
  process.kill(pid, "SIGKILL");
  await until("the next daemon listens", async () => (await isHibernated()) && (await get()) === "3\n");
  await output(cli("hibernate", "web"));
  assert.equal(
    await output(cli("exec", "web", "sh", "-c", `cat /tmp/kept; kill -0 ${child} && echo alive`)),
    "kept\nalive",
  );
  await output(cli("hibernate", "web"));
  assert.equal(await output(cli("cp", "web:/tmp/kept", "-")).then((text) => text.includes("kept")), true);
  await output(cli("hibernate", "web"));
  await output(cli("wake", "web"));
  assert.equal(await get(), "4\n");
  await output(cli("hibernate", "web"));
  await output(cli("rm", "-f", "web"));
  assert.equal(await output(cli("ps", "-aq")), "");
});

/** Counts in memory, as files say. */
const counter = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; echo $i > /count; sleep 0.2; done"];

test("a sandbox goes back in place, and comes back by itself from its trail when its VM has died", async (t) => {
  const runtime = await openEmbedded(t);
  const sandbox = await runtime.sandboxes.create({
    image: "busybox",
    trail: { everyMs: 3_600_000, keep: 2 },
    restart: { policy: "from-checkpoint" },
    container: { command: counter },
  });
  const count = async (): Promise<number> => Number((await sandbox.exec(["cat", "/count"])).stdout);
  const logged = async (): Promise<string> => {
    let text = "";
    for await (const { data } of sandbox.main.logs()) text += Buffer.from(data).toString();
    return text;
  };
  await sandbox.files.write("/kept", "kept");
  const taken = await sandbox.checkpoint({ name: "before" });
  const then = await count();
  await until("it counts on", async () => (await count()) > then + 20);
  await sandbox.files.write("/lost", "lost");
  await sandbox.files.remove("/kept");
  const beganMs = performance.now();
  assert.equal((await sandbox.rewind({ checkpoint: "before" })).id, taken.id);
  t.diagnostic(`back in ${Math.round(performance.now() - beganMs)} ms`);
  assert.ok((await count()) < then + 20, "memory is as it was");
  assert.equal(Buffer.from(await sandbox.files.read("/kept")).toString(), "kept");
  await assert.rejects(sandbox.files.read("/lost"), { reason: "FILE_NOT_FOUND" });
  assert.equal((await sandbox.info()).generation, 1);
  await until("its log goes on", async () => (await logged()).split("\n").length > then);
  const numbers = (await logged()).split("\n").slice(0, -1).map(Number);
  assert.deepEqual(
    numbers,
    Array.from(numbers, (_, index) => index + 1),
  );

  process.kill((await sandbox.info()).vmm?.pid ?? 0, "SIGKILL");
  await until("it has come back", async () => {
    const { state, generation } = await sandbox.info();
    return state === "running" && generation === 2;
  });
  await until("it counts", async () => (await count()) > 0);
  assert.equal(Buffer.from(await sandbox.files.read("/kept")).toString(), "kept");
  assert.equal((await sandbox.info()).restart?.count, 1);
  for (const { id } of await runtime.checkpoints.list()) await runtime.checkpoints.remove(id);
});
