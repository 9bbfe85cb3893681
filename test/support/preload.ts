/**
 * Loaded into the process of every test file (`node --test --import`): gives the file a temporary directory, root and run
 * directory of its own, and fails it when it leaves something behind. `harness.ts` does the same for a single test; this
 * also covers the files that use `node:test` alone, and what stands outside of tests.
 *
 * The look is taken when the process exits, after every hook of the file, by a process of its own: it does not depend on
 * the state in which the tests left this one.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { isMainThread } from "node:worker_threads";

/** For what its last test has begun to end, and its own hooks. */
const AFTER_TESTS_MS = 120_000;

// The runner itself loads this too, and so do threads; only the processes of files count.
if (isMainThread && process.env["NODE_TEST_CONTEXT"] !== undefined) {
  // Short: sockets are made below it, and their paths have 107 bytes at most.
  const dir = mkdtempSync(join(tmpdir(), "f-"));
  const testId = randomBytes(8).toString("hex");
  const temporary = join(dir, "t");
  mkdirSync(temporary);
  process.env["TMPDIR"] = temporary;
  process.env["BELLJAR_TEST_ID"] = testId;
  process.env["BELLJAR_ROOT"] = join(dir, "root");
  process.env["BELLJAR_RUN"] = join(dir, "run");

  // A test that has failed may leave a child that would keep the file, and with it the whole run, for ever.
  after(() => {
    setTimeout(() => {
      process.stderr.write(`this test file does not end by itself, ${AFTER_TESTS_MS} ms after its tests\n`);
      process.exit(1);
    }, AFTER_TESTS_MS).unref();
  });
  process.on("exit", () => {
    const checker = join(import.meta.dirname, "leak-check.ts");
    const environment = { PATH: process.env["PATH"] ?? "" };
    const found = execFileSync(process.execPath, [checker, testId, dir, String(process.pid)], { env: environment });
    const leaks = found.toString("utf8").split("\n").filter(Boolean);
    // Never into a mount: what is there may be the host's.
    if (!leaks.some((leak) => leak.startsWith("mount "))) rmSync(dir, { recursive: true, force: true });
    if (leaks.length === 0) return;
    process.stderr.write(`this test file left behind:\n${leaks.map((leak) => `  ${leak}\n`).join("")}`);
    process.exitCode = 1;
  });
}
