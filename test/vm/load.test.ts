/** A small load test; by hand with more: test/load/main.ts. */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { resolvePaths } from "../../src/sdk/index.ts";
import { runLoad } from "../load/load.ts";
import { test } from "../support/harness.ts";

test("many clients, and a daemon that is killed: nothing is lost untold, done twice, disturbed or left", async (t) => {
  const shared = resolvePaths({}, process.env, 0);
  const paths = { ...shared, root: join(t.dir, "root"), run: join(t.dir, "run") };
  await mkdir(paths.root);
  const report = await runLoad({
    paths,
    logPath: join(t.dir, "belljard.log"),
    sandboxes: 2,
    clients: 6,
    durationMs: 24_000,
    killEveryMs: 8_000,
    seed: 1,
    say: (line) => t.diagnostic(line),
  });
  assert.deepEqual(report.violations, []);
  assert.ok(report.kills >= 2);
  for (const operation of ["exec", "files", "logs"]) assert.ok((report.succeeded.get(operation) ?? 0) > 0, operation);
  assert.deepEqual(
    [...report.failed.keys()].filter(
      (key) => !/ (?:DAEMON_\w+|CANCELLED|CHECKPOINT_NOT_FOUND|SANDBOX_NOT_FOUND)$/.test(key),
    ),
    [],
    "callers are told that the daemon was lost, and nothing else",
  );
});
