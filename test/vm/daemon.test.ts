/** Sandboxes through the daemon, as users and scripts handle them; and what becomes of them when the daemon dies. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { getPriority } from "node:os";
import { runCli, startCli, type TestScope, test } from "../support/harness.ts";
import { until } from "../support/until.ts";

async function ok(t: TestScope, ...args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli(t, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

async function json<T>(t: TestScope, ...args: readonly string[]): Promise<T> {
  return JSON.parse(await ok(t, ...args, "--json"));
}

interface Inspected {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly vmm?: { readonly pid: number };
  readonly containers: readonly {
    readonly id: string;
    readonly state: string;
    readonly status?: { exitCode: number };
  }[];
}

const COUNTER = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done";

test("a detached container is listed, read, entered, paused, stopped, started again and removed", async (t) => {
  const id = (
    await ok(t, "run", "-d", "--name", "web", "--annotation", "team=blue", "busybox", "sh", "-c", COUNTER)
  ).trim();
  assert.match(id, /^[0-9a-f]{12}$/);
  assert.equal(await ok(t, "ps", "-q"), `${id}\n`);
  assert.equal(await ok(t, "ps", "-q", "--filter", "annotation=team=red"), "");
  const shown = await json<Inspected>(t, "inspect", "web");
  assert.deepEqual([shown.id, shown.name, shown.state, shown.annotations], [id, "web", "running", { team: "blue" }]);

  const follower = startCli(t, ["logs", "-f", id.slice(0, 6)]);
  await follower.waitForOutput("line 5\n");
  follower.kill("SIGINT");
  assert.equal((await follower.done).status, 130);
  assert.equal(follower.stdoutText().startsWith("line 0\nline 1\n"), true);
  assert.match(await ok(t, "logs", "--tail", "2", "web"), /^line \d+\nline \d+\n$/);

  const entered = await runCli(t, [
    "exec",
    "-e",
    "A=1",
    "-w",
    "/tmp",
    "web",
    "sh",
    "-c",
    "echo $A $(pwd); echo e >&2; exit 5",
  ]);
  assert.deepEqual([entered.status, entered.stdout.toString(), entered.stderr], [5, "1 /tmp\n", "e\n"]);
  const piped = await runCli(t, ["exec", "-i", "web", "cat"], { input: Buffer.from("abc") });
  assert.deepEqual([piped.status, piped.stdout.toString()], [0, "abc"]);
  assert.equal((await runCli(t, ["exec", "web", "no-such-command"])).status, 127);

  const attached = startCli(t, ["attach", "--no-stdin", "web"]);
  await attached.waitForOutput("line ");
  assert.doesNotMatch(attached.stdoutText(), /^line 0$/m, "from now on");
  attached.kill("SIGKILL");
  await attached.done;

  await ok(t, "pause", "web");
  assert.equal((await json<Inspected>(t, "inspect", "web")).state, "paused");
  const refused = await runCli(t, ["exec", "web", "true"]);
  assert.equal(refused.status, 125);
  assert.match(refused.stderr, /paused/);
  await ok(t, "resume", "web");
  await ok(t, "update", "-m", "64m", "--cpus", "0.5", "web");
  assert.match(await ok(t, "stats", "--no-stream", "web"), /67\.1 MB/);

  const running = await runCli(t, ["rm", "web"]);
  assert.equal(running.status, 125);
  assert.match(running.stderr, /running/);
  const waiter = startCli(t, ["wait", "web"]);
  await ok(t, "stop", "-t", "1", "web");
  assert.equal((await waiter.done).stdout.toString(), "143\n");
  assert.equal(await ok(t, "ps", "-q"), "");
  await ok(t, "start", "web");
  assert.equal((await json<Inspected>(t, "inspect", "web")).state, "running");
  await ok(t, "kill", "web");
  assert.equal(await ok(t, "wait", "web"), "137\n");
  await ok(t, "rm", "-f", "web");
  assert.equal(await ok(t, "ps", "-aq"), "");
});

test("a container is created, started with its output attached, and a second one added", async (t) => {
  const id = (await ok(t, "create", "busybox", "sh", "-c", "echo first; sleep 600")).trim();
  assert.equal((await json<Inspected>(t, "inspect", id)).state, "ready");
  const first = startCli(t, ["start", "-a", id]);
  await first.waitForOutput("first\n");
  const second = await runCli(t, ["run", "--rm", "--sandbox", id, "busybox", "sh", "-c", "echo second; exit 6"]);
  assert.deepEqual([second.status, second.stdout.toString(), second.stderr], [6, "second\n", ""]);
  const third = (await ok(t, "create", "--sandbox", id, "--name", "third", "busybox", "sleep", "600")).trim();
  await ok(t, "start", `${id}/third`);
  assert.equal((await ok(t, "exec", `${id}/${third}`, "hostname")).trim(), id);
  await ok(t, "rm", "-f", `${id}/third`);
  assert.equal((await json<Inspected>(t, "inspect", id)).containers.length, 1);
  first.kill("SIGTERM");
  assert.equal((await first.done).status, 143);
});

test("what is the sandbox's as a whole is shared by its containers; a further command has no more than was asked for", async (t) => {
  const shared = ["--share-pids", "--shared-memory", "16m", "--dns", "192.0.2.53", "--dns-search", "example.test"];
  await ok(t, "run", "-d", "--name", "pod", ...shared, "--cap-drop", "ALL", "-e", "A=1", "busybox", "sleep", "3600");
  await ok(t, "run", "-d", "--sandbox", "pod", "--name", "two", "busybox", "sleep", "7200");
  assert.match(await ok(t, "exec", "pod", "ps"), /sleep 3600[\s\S]*sleep 7200/);
  await ok(t, "exec", "pod", "sh", "-c", "echo hello >/dev/shm/file");
  assert.match(
    await ok(t, "exec", "pod/two", "sh", "-c", "cat /dev/shm/file; df -k /dev/shm"),
    /^hello\n[\s\S]* 16384 /,
  );
  assert.equal(
    await ok(t, "exec", "pod/two", "cat", "/etc/resolv.conf"),
    "nameserver 192.0.2.53\nsearch example.test\n",
  );
  const bounding = async (...args: readonly string[]): Promise<string> =>
    (await ok(t, "exec", ...args, "pod", "sh", "-c", "grep CapBnd /proc/self/status; echo $A")).replace(/\s+/g, " ");
  assert.equal(await bounding(), "CapBnd: 0000000000000000 1 ");
  assert.equal(await bounding("--cap-add", "NET_RAW", "-e", "A=2"), "CapBnd: 0000000000002000 2 ");
  await ok(t, "update", "--cpu-weight", "50", "--cpuset-cpus", "0", "pod");
  const refused = await runCli(t, ["run", "--sandbox", "pod", "--dns", "192.0.2.1", "busybox", "true"]);
  assert.deepEqual([refused.status, /--dns is the sandbox's/.test(refused.stderr)], [125, true]);
  await ok(t, "stop", "--force", "-t", "0", "pod");
  await ok(t, "rm", "pod");
});

test("names that are unknown, taken, ambiguous or unsafe are refused, each with what to do", async (t) => {
  await ok(t, "create", "--name", "one", "busybox", "true");
  for (const [args, expected] of [
    [["run", "--name", "one", "busybox", "true"], /sandbox one already/],
    [["inspect", "nonesuch"], /nonesuch.*\n.*ps -a/],
    [["stop", "../../etc"], /sandbox "\.\."/],
    [["exec", "one/../x", "true"], /container "\.\.\/x"/],
    [["inspect", "one/nonesuch"], /nonesuch/],
    [["ps", "--filter", "colour=red"], /colour=red.*\n.*state=/],
    [["kill", "-s", "NOSUCH", "one"], /NOSUCH/],
    [["logs", "--since", "yesterday", "one"], /yesterday/],
    [["update", "one"], /nothing to update/],
  ] as const) {
    const { status, stderr } = await runCli(t, [...args]);
    assert.equal(status, 125, args.join(" "));
    assert.match(stderr, expected);
  }
});

test("a run in the foreground goes on, without gap or repeat, when the daemon is killed", async (t) => {
  const script = "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); sleep 0.05; done; exit 4";
  const cli = startCli(t, ["run", "--rm", "busybox", "sh", "-c", script]);
  for (const mark of ["20\n", "80\n"]) {
    await cli.waitForOutput(`\n${mark}`);
    const { pid } = await json<{ pid: number }>(t, "daemon", "status");
    process.kill(pid, "SIGKILL");
  }
  const { status, stdout, stderr } = await cli.done;
  const wanted = Array.from({ length: 200 }, (_, index) => `${index}\n`).join("");
  assert.deepEqual({ status, stdout: stdout.toString(), stderr }, { status: 4, stdout: wanted, stderr: "" });
});

test("a further command that writes as fast as it can loses nothing when the daemon is killed", async (t) => {
  await ok(t, "run", "-d", "--name", "fast", "busybox", "sleep", "3600");
  const count = 500_000;
  const cli = startCli(t, ["exec", "fast", "seq", "1", String(count)]);
  let [isOver, kills] = [false, 0];
  void cli.done.then(() => {
    isOver = true;
  });
  for (const bytes of [100_000, 900_000, 2_000_000]) {
    await cli.waitForBytes(bytes);
    // So much may have come before the last one was killed: the next one need not be there yet, or all may have come.
    const isThere = async (): Promise<boolean> => isOver || (await runCli(t, ["daemon", "status"])).status === 0;
    await until(isThere, { what: "a daemon", timeoutMs: 60_000 });
    if (isOver) break;
    kills += 1;
    const { pid } = await json<{ pid: number }>(t, "daemon", "status");
    process.kill(pid, "SIGKILL");
  }
  const { status, stdout, stderr } = await cli.done;
  assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
  assert.ok(kills > 0);
  const numbers = stdout.toString().trim().split("\n");
  const wrong = numbers.findIndex((number, index) => number !== String(index + 1));
  assert.equal(wrong, -1, `line ${wrong + 1} is ${numbers[wrong]}`);
  assert.equal(numbers.length, count);
  await ok(t, "rm", "-f", "fast");
});

test("a sandbox outlives its client, and its daemon", async (t) => {
  const cli = startCli(t, ["run", "--name", "alive", "busybox", "sh", "-c", `echo up; ${COUNTER}`]);
  await cli.waitForOutput("up\n");
  cli.kill("SIGKILL");
  await cli.done;
  const before = await json<Inspected>(t, "inspect", "alive");
  assert.equal(before.state, "running");
  assert.match(await ok(t, "daemon", "stop"), /stopped the daemon/);
  assert.equal((await runCli(t, ["daemon", "status"])).status, 3);
  const after = await json<Inspected>(t, "inspect", "alive");
  assert.deepEqual([after.state, after.vmm?.pid], ["running", before.vmm?.pid]);
  await ok(t, "rm", "-f", "alive");
});

test("where CPUs are short, the daemon goes before its guests", async (t) => {
  await ok(t, "run", "-d", "--name", "web", "busybox", "sleep", "1000");
  const { vmm } = await json<Inspected>(t, "inspect", "web");
  const { pid } = await json<{ readonly pid: number }>(t, "daemon", "status");
  const threads = await readdir(`/proc/${vmm?.pid}/task`);
  assert.ok(threads.length > 1);
  for (const thread of threads) assert.equal(getPriority(Number(thread)), 0);
  assert.equal(getPriority(pid), -7);
  await ok(t, "rm", "-f", "web");
});

test("two commands at once without a daemon share the one that comes", async (t) => {
  const both = await Promise.all([runCli(t, ["ps", "-q"]), runCli(t, ["ps", "-q"]), runCli(t, ["ps", "-q"])]);
  for (const { status, stderr } of both) assert.deepEqual({ status, stderr }, { status: 0, stderr: "" });
  const { pid } = await json<{ pid: number }>(t, "daemon", "status");
  const second = await runCli(t, ["daemon", "run"]);
  assert.equal(second.status, 125);
  assert.match(second.stderr, new RegExp(`pid ${pid}`));
});

test("forks whose daemon is killed before it has asked their agents for anything: the next one finds them, and has them go on", async (t) => {
  await ok(t, "run", "-d", "--name", "source", "busybox", "sh", "-c", COUNTER);
  await ok(t, "fork", "source", "-n", "3", "--name", "fork-{n}");
  const { pid } = await json<{ readonly pid: number }>(t, "daemon", "status");
  process.kill(pid, "SIGKILL");
  for (const name of ["fork-1", "fork-2", "fork-3"]) {
    assert.equal(await ok(t, "exec", name, "echo", "on"), "on\n");
    const { state, containers } = await json<Inspected>(t, "inspect", name);
    assert.deepEqual([state, containers[0]?.state], ["running", "running"]);
  }
  await ok(t, "rm", "-f", "source", "fork-1", "fork-2", "fork-3");
});
