/**
 * `leak-check.ts TEST-ID DIRECTORY PID`: one line for each thing that the test file of process PID left behind; what of it would go on
 * by itself is ended then.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { endLeaks, findLeaks, lookAgain, networkObjects } from "./leaks.ts";

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

const leaks = await lookAgain(() => look({ testId, dir, pid }));
if (leaks.length > 0) await endLeaks({ testId, dir, pid });
process.stdout.write(leaks.map((leak) => `${leak}\n`).join(""));
