/**
 * `node test/load/main.ts [--sandboxes 100] [--clients 50] [--minutes 10] [--kill-every 20] [--seed 1] [--json FILE]`: the load test by
 * hand. Its state is in a directory of its own below $TMPDIR; the guest image and the templates are the usual ones.
 */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resolvePaths } from "../../src/sdk/index.ts";
import { endLeaks, findLeaks, lookAgain, networkObjects } from "../support/leaks.ts";
import { runLoad } from "./load.ts";

const { values } = parseArgs({
  options: {
    sandboxes: { type: "string", default: "100" },
    clients: { type: "string", default: "50" },
    minutes: { type: "string", default: "10" },
    "kill-every": { type: "string", default: "20" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
  },
});
const say = (line: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`);
const testId = randomBytes(8).toString("hex");
process.env["BELLJAR_TEST_ID"] = testId;
const dir = await mkdtemp(join(tmpdir(), "load-"));
const scope = { testId, dir, before: await networkObjects() };
const usual = resolvePaths({}, process.env, process.getuid?.() ?? 0);
const paths = { ...usual, root: join(dir, "root"), run: join(dir, "run") };
await mkdir(paths.root);
try {
  const report = await runLoad({
    paths,
    logPath: join(dir, "belljard.log"),
    sandboxes: Number(values.sandboxes),
    clients: Number(values.clients),
    durationMs: Number(values.minutes) * 60_000,
    killEveryMs: Number(values["kill-every"]) * 1000,
    seed: Number(values.seed),
    say,
  });
  const leaks = await lookAgain(() => findLeaks(scope));
  const delays = [...report.delaysMs].sort((one, other) => one - other);
  say(`kills: ${report.kills}`);
  say(`succeeded: ${JSON.stringify(Object.fromEntries(report.succeeded))}`);
  say(`failed, and told: ${JSON.stringify(Object.fromEntries(report.failed))}`);
  say(
    `event loop, p99 of each life: median ${delays[delays.length >> 1]} ms, most ${delays.at(-1)} ms, n=${delays.length}`,
  );
  for (const what of report.violations) say(`VIOLATION: ${what}`);
  for (const leak of leaks) say(`LEFT: ${leak}`);
  if (values.json !== undefined) {
    const { succeeded, failed, examples, ...rest } = report;
    const counts = {
      succeeded: Object.fromEntries(succeeded),
      failed: Object.fromEntries(failed),
      examples: Object.fromEntries(examples),
    };
    await writeFile(values.json, `${JSON.stringify({ options: values, ...rest, ...counts, leaks }, undefined, 1)}\n`);
  }
  process.exitCode = report.violations.length + leaks.length === 0 ? 0 : 1;
} finally {
  await endLeaks(scope);
  await rm(dir, { recursive: true, force: true });
}
