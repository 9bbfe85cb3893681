/** The first command in what is started from a warm image: it becomes a process that has waited for it, and nobody can tell but by the time. */
import assert from "node:assert/strict";
import { type CliResult, runCli, type TestScope, test } from "../support/harness.ts";

/** All that a program can see of how it was started. */
const PROBE = `id; pwd; umask; env | sort; readlink /proc/self/fd/0
  ls /proc/self/fd | wc -l
  grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk|Threads)' /proc/self/status
  cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup
  ls -l /proc/self/ns | sed 's/.*-> //'
  echo "$0 $*"; exit 7`;
/** A hook of the container's, and a file that can be executed by nobody, though its mode says so. */
const MAKE_FILES = `mkdir -p /etc/belljar/hooks && cd /etc/belljar/hooks
  printf '#!/bin/sh\\necho "$0" >/tmp/hook' >before-save && printf 'no program' >/tmp/odd && chmod 755 before-save /tmp/odd`;
const WAITS = "belljar: waits for a command";

async function cli(t: TestScope, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runCli(t, args);
  assert.equal(status, 0, `${args.join(" ")}: ${stderr}`);
  return stdout.toString();
}

/** Seen by another user's command, for which it does not wait. */
async function waits(t: TestScope, name: string): Promise<boolean> {
  return (await cli(t, "exec", "-u", "0", name, "ps", "-o", "args")).includes(WAITS);
}

async function probe(t: TestScope, name: string): Promise<Pick<CliResult, "status" | "stderr"> & { stdout: string }> {
  const words = ["exec", "-e", "WORD=a word", "-w", "/tmp", name, "sh", "-c", PROBE, "zero", "one two"];
  const { status, stdout, stderr } = await runCli(t, words);
  // The only thing that one sandbox has and another has not.
  return { status, stdout: stdout.toString().replace(/^HOSTNAME=.*$/m, "HOSTNAME"), stderr };
}

test(
  "a warm image's first command is set up as every other one, and what cannot be run is told as ever",
  async (t) => {
    const rights = ["-u", "1000:1000", "--cap-add", "NET_RAW", "--security-opt", "no-new-privileges"];
    await cli(t, "run", "-d", "--name", "app", ...rights, "-e", "OWN=1", "busybox", "sleep", "100000");
    assert.equal(await waits(t, "app"), false);
    await cli(t, "exec", "-u", "0", "app", "sh", "-c", MAKE_FILES);
    await cli(t, "template", "build", "--from", "app", "--name", "warm");
    assert.equal(await waits(t, "app"), true);
    const copies = ["c1", "c2", "c3", "c4", "c5", "c7"];
    for (const name of copies) await cli(t, "create", "--template", "warm", "--name", name);

    // The hook that ran before did not take it.
    assert.equal(await waits(t, "c1"), true);
    assert.equal(await cli(t, "exec", "-u", "0", "c1", "cat", "/tmp/hook"), "/etc/belljar/hooks/before-save\n");
    const first = await probe(t, "c1");
    assert.equal(await waits(t, "c1"), false);
    const second = await probe(t, "c1");
    assert.equal(first.status, 7, first.stderr);
    assert.match(first.stdout, /^uid=1000 gid=1000\n\/tmp\n/);
    assert.match(first.stdout, /\nWORD=a word\n/);
    assert.match(first.stdout, /\nzero one two\n$/);
    assert.deepEqual(first, second);
    // Of the source as of its copies.
    assert.deepEqual(await probe(t, "app"), first);

    for (const [name, command, status] of [
      ["c2", "nothere", 127],
      ["c3", "/etc", 126],
      ["c4", "./nothere", 127],
      // It is found and executed: what the kernel says comes late.
      ["c7", "/tmp/odd", 126],
    ] as const) {
      assert.equal(await waits(t, name), true);
      const [unlike, like] = [await runCli(t, ["exec", name, command]), await runCli(t, ["exec", "c1", command])];
      assert.equal(unlike.status, status);
      assert.equal(unlike.stderr, like.stderr);
    }
    assert.equal(await cli(t, "exec", "c2", "echo", "on"), "on\n");

    assert.equal(await waits(t, "c5"), true);
    const typed = await runCli(t, ["exec", "-i", "c5", "cat"], { input: Buffer.from("typed\n") });
    assert.equal(typed.stdout.toString(), "typed\n");
    assert.equal(await waits(t, "c5"), false);

    // It waits in copies of a copy, too; what somebody had started does not.
    await cli(t, "exec", "-d", "-u", "0", "c4", "sleep", "99999");
    const checkpoint = (await cli(t, "checkpoint", "create", "c4")).trim();
    await cli(t, "restore", checkpoint, "--name", "c6");
    const shown = await cli(t, "exec", "-u", "0", "c6", "ps", "-o", "args");
    assert.ok(shown.includes(WAITS));
    assert.ok(!shown.includes("sleep 99999"));
    assert.deepEqual(await probe(t, "c6"), first);
    await cli(t, "pause", "c4");
    await cli(t, "resume", "c4");
    assert.deepEqual(await probe(t, "c4"), first);
  },
  { timeoutMs: 600_000 },
);
