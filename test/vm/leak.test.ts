/** Fifty runs in a row, through one daemon, leave nothing: not a process, a socket, a directory. (The harness looks for the rest.) */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { resolvePaths } from "../../src/sdk/index.ts";
import { cliEnvironment, runCli, type TestScope, test } from "../support/harness.ts";

const RUNS = 50;

const TIMEOUT_MS = 14 * 60_000;

const fiftyRuns = async (t: TestScope): Promise<void> => {
  const paths = resolvePaths({}, cliEnvironment(t), process.getuid?.() ?? 0);
  for (let round = 0; round < RUNS; round += 1) {
    const { status, stdout, stderr } = await runCli(t, ["run", "--rm", "busybox", "echo", String(round)]);
    assert.deepEqual({ status, stdout: stdout.toString(), stderr }, { status: 0, stdout: `${round}\n`, stderr: "" });
  }
  assert.equal((await runCli(t, ["daemon", "stop"])).status, 0);
  assert.deepEqual(await readdir(join(paths.root, "sandboxes")), []);
  assert.deepEqual(await readdir(paths.run), []);
};

test("fifty runs in a row leave nothing behind", fiftyRuns, { timeoutMs: TIMEOUT_MS });
