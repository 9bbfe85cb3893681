/** The guest's first process, and the program that waits for its host. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";
import { guestProgram } from "../support/guest-program.ts";
import { tempDir, test } from "../support/harness.ts";
import { until } from "../support/until.ts";

const TIMEOUT_MS = 10_000;

test("the first process: its program has arguments and environment, orphans are forgotten, and it ends as that does", async (t) => {
  const dir = await tempDir(t);
  const init = await guestProgram(dir, "init");
  const script = `(sh -c 'exit 3' & echo $! > ${dir}/orphan)
    while [ -d /proc/$(cat ${dir}/orphan) ]; do :; done
    echo "$0 $1 $LANG $PPID"; exit 7`;
  const command = ["--pid", "--fork", "--mount-proc", init, "/bin/sh", "-c", script, "zero", "one"];
  const { stdout, exitCode } = await runTool("unshare", command, {
    env: { LANG: "C.UTF-8" },
    successStatuses: [7],
    timeoutMs: TIMEOUT_MS,
  });
  assert.deepEqual([stdout.toString(), exitCode], ["zero one C.UTF-8 1\n", 7]);
});

test("who waits for a host is told when one is there, and sleeps until then", async (t) => {
  const dir = await tempDir(t);
  const program = await guestProgram(dir, "host-wait");
  const path = join(dir, "port");
  await runTool("mkfifo", [path]);
  // As a port is: somebody at the other end, or a hang-up.
  await using port = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const host = (): ReturnType<typeof open> => open(path, constants.O_WRONLY);
  await (await host()).close();
  const child = spawn(program, [], { stdio: ["pipe", "pipe", "inherit", port.fd] });
  t.after(() => void child.kill("SIGKILL"));
  const { stdin, stdout } = child;
  assert.ok(stdin !== null && stdout !== null);
  let answers = "";
  stdout.on("data", (bytes: Buffer) => {
    answers += bytes.toString();
  });
  stdin.write("?");
  const isAsleep = async (): Promise<boolean> =>
    (await readFile(`/proc/${child.pid}/syscall`, "latin1")).startsWith(`${EPOLL_WAIT} `);
  await until(isAsleep, { what: "it to wait for a change" });
  assert.equal(answers, "");
  {
    await using there = await host();
    // The reading end of a pipe cannot be written to: it is told of what is said.
    await there.write("hello");
    await until(() => answers === "?");
    stdin.write("?");
    await until(() => answers === "??");
  }
  stdin.write("?");
  await until(isAsleep, { what: "it to wait again" });
  assert.equal(answers, "??");
  await (await host()).close();
  child.kill("SIGKILL");
  await until(() => child.signalCode !== null);
});

/** Number of the system call on x86-64. */
const EPOLL_WAIT = 232;
