/** `belljar run` as a user types it, in real VMs: streams, statuses, signals, options. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { release } from "node:os";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import { cliEnvironment, runCli, startCli, test } from "../support/harness.ts";

test("the container runs under a kernel of its own", async (t) => {
  const { status, stdout } = await runCli(t, ["run", "busybox", "uname", "-r"]);
  assert.equal(status, 0);
  assert.match(stdout.toString(), /^\d+\.\d+\.\S+\n$/);
  assert.notEqual(stdout.toString().trim(), release());
});

test("standard output and error are separate, and the exit status is the command's", async (t) => {
  const { status, stdout, stderr } = await runCli(t, ["run", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
  assert.deepEqual({ status, stdout: stdout.toString(), stderr }, { status: 7, stdout: "out\n", stderr: "err\n" });
});

test("standard input reaches the command, and its end too", async (t) => {
  const { status, stdout } = await runCli(t, ["run", "-i", "busybox", "cat"], { input: Buffer.from("abc") });
  assert.deepEqual({ status, stdout: stdout.toString() }, { status: 0, stdout: "abc" });
});

test("100 MB through a container come back unchanged", async (t) => {
  const input = randomBytes(100 * 1000 * 1000);
  const { status, stdout } = await runCli(t, ["run", "-i", "busybox", "cat"], { input, timeoutMs: 180_000 });
  assert.equal(status, 0);
  assert.equal(sha256(stdout), sha256(input));
});

test("the built-in node image runs Node", async (t) => {
  const { status, stdout } = await runCli(t, ["run", "node", "-e", "console.log(process.version)"]);
  assert.deepEqual({ status, stdout: stdout.toString() }, { status: 0, stdout: `${process.version}\n` });
});

test("SIGTERM to the command line ends a command that does not handle it, with 143", async (t) => {
  const cli = startCli(t, ["run", "busybox", "sh", "-c", "echo ready; sleep 600"]);
  await cli.waitForOutput("ready");
  cli.kill("SIGTERM");
  assert.equal((await cli.done).status, 143);
});

test("a command that handles SIGTERM decides for itself", async (t) => {
  const script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
  const cli = startCli(t, ["run", "busybox", "sh", "-c", script]);
  await cli.waitForOutput("ready");
  cli.kill("SIGTERM");
  const { status, stdout } = await cli.done;
  assert.deepEqual({ status, stdout: stdout.toString() }, { status: 3, stdout: "ready\nbye\n" });
});

test("a second SIGINT ends a command that ignores the first", async (t) => {
  const cli = startCli(t, ["run", "busybox", "sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.1; done"]);
  await cli.waitForOutput("ready");
  cli.kill("SIGINT");
  // Two at once would be one: the kernel does not count pending signals.
  await cli.afterMs(500);
  cli.kill("SIGINT");
  assert.equal((await cli.done).status, 137);
});

test("a reader that goes away ends an endless writer", async (t) => {
  const cli = startCli(t, ["run", "busybox", "yes"]);
  await cli.waitForOutput("y\n");
  cli.closeOutput();
  assert.equal((await cli.done).status, 141);
});

test("a command that does not exist ends with 127, one that cannot be executed with 126", async (t) => {
  const missing = await runCli(t, ["run", "busybox", "no-such-command"]);
  assert.equal(missing.status, 127);
  assert.match(missing.stderr, /^belljar: .*no-such-command/);
  const directory = await runCli(t, ["run", "busybox", "/etc"]);
  assert.equal(directory.status, 126);
  assert.match(directory.stderr, /^belljar: .*\/etc/);
  const plain = await runCli(t, ["run", "busybox", "/etc/passwd"]);
  assert.equal(plain.status, 126);
});

test("environment, working directory, user and host name are as asked", async (t) => {
  const script = 'echo "$A $B $(pwd) $(id -u):$(id -g) $(hostname)"';
  const { stdout } = await runCli(
    t,
    [
      "run",
      "-e",
      "A=1",
      "-e",
      "B",
      "-w",
      "/tmp",
      "-u",
      "65534:65534",
      "--hostname",
      "here",
      "busybox",
      "sh",
      "-c",
      script,
    ],
    { env: { B: "from-client" } },
  );
  assert.equal(stdout.toString(), "1 from-client /tmp 65534:65534 here\n");
});

test("a user by name is looked up in the container's own files", async (t) => {
  const known = await runCli(t, ["run", "-u", "nobody", "busybox", "id", "-un"]);
  assert.equal(known.stdout.toString(), "nobody\n");
  const unknown = await runCli(t, ["run", "-u", "nonesuch", "busybox", "true"]);
  assert.equal(unknown.status, 125);
  assert.match(unknown.stderr, /nonesuch/);
});

test("capabilities, seccomp and the read-only root file system hold", async (t) => {
  const readOnly = await runCli(t, ["run", "--read-only", "busybox", "touch", "/x"]);
  assert.equal(readOnly.status, 1);
  assert.match(readOnly.stderr, /Read-only file system/);
  const dropped = await runCli(t, ["run", "--cap-drop", "ALL", "busybox", "chown", "1:1", "/tmp"]);
  assert.equal(dropped.status, 1);
  const script = "grep -E '^(Seccomp|CapEff):' /proc/self/status";
  const { stdout } = await runCli(t, ["run", "busybox", "sh", "-c", script]);
  assert.match(stdout.toString(), /^CapEff:\t00000000a80425fb\nSeccomp:\t2\n$/);
});

test("the writable layer takes files, and /proc, /dev and /dev/shm are there", async (t) => {
  const script = [
    "set -e",
    "mkdir /data && echo hello > /data/f && cat /data/f",
    "rm /etc/group && ! test -e /etc/group",
    "test -c /dev/null && test -d /proc/1 && test -L /dev/fd",
    "df -k /dev/shm | tail -1 | awk '{print $2}'",
  ].join("; ");
  const { status, stdout, stderr } = await runCli(t, ["run", "busybox", "sh", "-c", script]);
  assert.deepEqual({ status, stderr, stdout: stdout.toString() }, { status: 0, stderr: "", stdout: "hello\n65536\n" });
});

test("with -t the command has a terminal", async (t) => {
  const { status, stdout } = await runCli(t, [
    "run",
    "-t",
    "busybox",
    "sh",
    "-c",
    "tty; test -t 0 && test -t 1; exit 5",
  ]);
  assert.equal(status, 5);
  assert.match(stdout.toString(), /\/dev\/(pts\/0|console)/);
});

test("with -i -t the terminal's size reaches the container, and the exit status comes back", async (t) => {
  const binary = join(import.meta.dirname, "../../bin/belljar");
  // The size is asked for after the start, which tells it to the container's terminal.
  const command = `stty rows 33 cols 77; ${binary} run -it busybox sh -c 'sleep 1; stty size; exit 9'`;
  const options = { env: environmentOf(cliEnvironment(t)), successStatuses: [9] };
  const { stdout } = await runTool("script", ["-q", "-e", "-c", command, "/dev/null"], options);
  assert.match(stdout.toString(), /33 77/);
});

function environmentOf(variables: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, value ?? ""]));
}

test("a reader that stops reading stops the writer, not the memory", async (t) => {
  // The writer says after each megabyte how far it is, on a stream that is read. Nobody holding it up, it would go on to 150.
  const script = "i=0; while [ $i -lt 150 ]; do head -c 1000000 /dev/zero; i=$((i+1)); echo $i >&2; done";
  const cli = startCli(t, ["run", "-m", "128m", "busybox", "sh", "-c", script], { timeoutMs: 240_000 });
  await cli.waitForBytes(1);
  cli.pauseOutput();
  const written = (): number => Number(cli.stderrText().trim().split("\n").at(-1));
  let before = -1;
  while (written() !== before) {
    before = written();
    await cli.afterMs(4000);
  }
  assert.equal(before < 50, true, `${before} MB were written although nobody read them`);
  cli.resumeOutput();
  const { status, stdout } = await cli.done;
  assert.deepEqual({ status, bytes: stdout.length }, { status: 0, bytes: 150_000_000 });
});

function sha256(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
