/** `leak-check.ts TEST-ID DIRECTORY PID`: one line for each thing that the test file of process PID left behind. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findLeaks, networkObjects } from "./leaks.ts";

/** A process that was killed may take a moment to be gone; what is gone by then was not left behind. */
const GRACE_MS = 1000;
const INTERVAL_MS = 20;

const [testId, dir, pid] = process.argv.slice(2);
if (testId === undefined || dir === undefined || pid === undefined) {
  process.stderr.write("usage: leak-check.ts TEST-ID DIRECTORY PID\n");
  process.exit(2);
}

async function look(scope: { testId: string; dir: string; pid: string }): Promise<string[]> {
  // Network objects of files that run at the same time cannot be told apart here: tools/test.ts looks for them.
  const leaks = await findLeaks({ ...scope, before: await networkObjects() });
  for (const folder of ["t", "root", "run"]) {
    const names = await readdir(join(scope.dir, folder)).catch(() => []);
    leaks.push(...names.map((name) => `file ${join(folder, name)}`));
  }
  return leaks;
}

let leaks = await look({ testId, dir, pid });
for (const until = performance.now() + GRACE_MS; leaks.length > 0 && performance.now() < until; ) {
  await sleep(INTERVAL_MS);
  leaks = await look({ testId, dir, pid });
}
process.stdout.write(leaks.map((leak) => `${leak}\n`).join(""));
