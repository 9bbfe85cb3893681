/** Sandboxes that start from a template are each their own: nothing of one is in another, and the time is right. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { findVmmProcesses } from "../../src/hypervisor/index.ts";
import { resolvePaths } from "../../src/sdk/index.ts";
import { cliEnvironment, runCli, startCli, type TestScope, test } from "../support/harness.ts";
import { until } from "../support/until.ts";

const COPIES = 3;
const SCRIPT = [
  "cat /proc/sys/kernel/random/boot_id",
  "head -c 16 /dev/urandom | od -An -tx1",
  "hostname",
  "date +%s",
  "cat /proc/uptime",
].join(" && ");

async function inspect(t: TestScope, name: string): Promise<string> {
  const { stdout } = await runCli(t, ["inspect", name]);
  return stdout.toString();
}

/** Where this test has templates of its own. */
const own = (t: TestScope): Record<string, string> => ({ BELLJAR_TEMPLATES: join(t.dir, "templates") });

test("copies of a template have their own random numbers, names and time", async (t) => {
  const seen: string[][] = [];
  for (let copy = 0; copy < COPIES; copy += 1) {
    const { stdout, stderr, status } = await runCli(t, [
      "run",
      "--name",
      `copy-${copy}`,
      "busybox",
      "sh",
      "-c",
      SCRIPT,
    ]);
    assert.equal(status, 0, stderr);
    const lines = stdout.toString().trim().split("\n");
    const hostSeconds = Date.now() / 1000;
    const guestSeconds = Number(lines[3]);
    // The command takes a while to end; the guest's clock only knows whole seconds here.
    assert.ok(guestSeconds <= hostSeconds && guestSeconds > hostSeconds - 60, `${guestSeconds}, host ${hostSeconds}`);
    seen.push(lines.slice(0, 3));
  }
  for (const index of [0, 1, 2]) assert.equal(new Set(seen.map((lines) => lines[index])).size, COPIES, String(seen));
  const { stdout } = await runCli(t, ["run", "-d", "busybox", "sleep", "1000"]);
  const id = stdout.toString().trim();
  assert.match(await inspect(t, id), /"template": "[0-9a-f]{64}"/);
  // Stopped and started again it is a copy again, with its own disk as it was left.
  assert.equal((await runCli(t, ["exec", id, "sh", "-c", "echo kept > /kept"])).status, 0);
  for (const verb of ["stop", "start"]) {
    const { status, stderr } = await runCli(t, [verb, id]);
    assert.equal(status, 0, stderr);
  }
  assert.equal((await runCli(t, ["exec", id, "cat", "/kept"])).stdout.toString(), "kept\n");
});

test("a template is listed, removed under a running sandbox, and not used when that is asked for", async (t) => {
  const options = { env: own(t) };
  const run = await runCli(t, ["run", "-d", "busybox", "sleep", "1000"], options);
  const id = run.stdout.toString().trim();
  const listed = await runCli(t, ["template", "ls", "--json"], options);
  const { digest, memoryBytes } = JSON.parse(listed.stdout.toString());
  assert.equal(memoryBytes, 256 * 1024 * 1024);
  assert.match(await inspect(t, id), new RegExp(`"template": "${digest}"`));
  const removed = await runCli(t, ["template", "rm", String(digest).slice(0, 12)], options);
  assert.equal(removed.stdout.toString(), `${digest}\n`, removed.stderr);
  assert.equal((await runCli(t, ["exec", id, "echo", "on"])).stdout.toString(), "on\n");
  const cold = await runCli(t, ["run", "--no-template", "-d", "busybox", "sleep", "1000"], options);
  assert.doesNotMatch(await inspect(t, cold.stdout.toString().trim()), /"template"/);
  assert.deepEqual(await readdir(join(t.dir, "templates")), ["lock"]);
  const none = await runCli(t, ["template", "rm", "0123"], options);
  assert.equal(none.status, 125);
  assert.match(none.stderr, /there is no template "0123"/);
});

test("a daemon that is killed while it makes a template leaves nothing that the next one does not clean up", async (t) => {
  const options = { env: own(t) };
  const first = startCli(t, ["run", "busybox", "true"], options);
  const isMaking = async (): Promise<boolean> =>
    (await readdir(join(t.dir, "templates")).catch(() => [])).some((name) => name.includes("tmp"));
  while (!(await isMaking())) await new Promise((resolve) => setTimeout(resolve, 20));
  const { stdout } = await runCli(t, ["daemon", "status", "--json"], options);
  process.kill(JSON.parse(stdout.toString()).pid, "SIGKILL");
  first.kill("SIGKILL");
  await first.done;
  const { status, stderr } = await runCli(t, ["run", "busybox", "true"], options);
  assert.equal(status, 0, stderr);
  const names = (await readdir(join(t.dir, "templates"))).map((name) => (name.length === 64 ? "template" : name));
  assert.deepEqual(names, ["template", "lock"]);
});

test("a sandbox takes a VM that waits for it; one that waits ends with its owner, also when that is killed", async (t) => {
  const options = { env: { BELLJAR_POOL: "1" } };
  const { run, root } = resolvePaths({}, cliEnvironment(t), process.getuid?.() ?? 0);
  const create = async (): Promise<string> => {
    const { stdout, stderr, status } = await runCli(t, ["run", "-d", "busybox", "sleep", "1000"], options);
    assert.equal(status, 0, stderr);
    return stdout.toString().trim();
  };
  const waitFor = async (count: number): Promise<void> => {
    const log = async (): Promise<string> => await readFile(join(root, "belljard.log"), "utf8");
    const timeoutMs = 120_000;
    await until(async () => (await log()).split("a VM waits for a sandbox").length > count, { timeoutMs });
  };
  const first = await create();
  await waitFor(1);
  const [waiting, ...others] = (await findVmmProcesses(run)).filter(({ id }) => id !== first);
  assert.deepEqual(others, []);
  const second = await create();
  assert.equal(second, waiting?.id);
  const shown = await runCli(t, ["exec", second, "hostname"]);
  assert.equal(shown.stdout.toString().trim(), second);
  await waitFor(2);
  assert.equal((await findVmmProcesses(run)).length, 3);
  const { stdout } = await runCli(t, ["daemon", "status", "--json"]);
  const daemon: unknown = JSON.parse(stdout.toString());
  assert.ok(typeof daemon === "object" && daemon !== null && "pid" in daemon && typeof daemon.pid === "number");
  process.kill(daemon.pid, "SIGKILL");
  const listed = await runCli(t, ["ps", "-q"], { env: { BELLJAR_POOL: "0" } });
  assert.deepEqual(new Set(listed.stdout.toString().trim().split("\n")), new Set([first, second]));
  assert.deepEqual(new Set((await findVmmProcesses(run)).map(({ id }) => id)), new Set([first, second]));
});
