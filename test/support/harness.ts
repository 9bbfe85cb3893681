/**
 * `test` for everything that touches the host: each test has a directory, a root and a run directory of its own, and fails
 * when it leaves behind a process, mount, socket, loop device, network object, open file or temporary file. Processes that it
 * has left are ended then.
 */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as nodeTest } from "node:test";
import { endLeaks, findLeaks, lookAgain, networkObjects } from "./leaks.ts";
import type { TestScope } from "./scope.ts";

export { type CliOptions, type CliProcess, type CliResult, cliEnvironment, runCli, startCli } from "./cli.ts";
export type { TestScope } from "./scope.ts";

export interface TestOptions {
  readonly timeoutMs?: number;
}

/** Longest time for one test unless it says otherwise: a VM boots in seconds, but the machine may be slow. */
const TIMEOUT_MS = 300_000;

export function test(name: string, work: (t: TestScope) => Promise<void>, options: TestOptions = {}): void {
  nodeTest(name, { timeout: options.timeoutMs ?? TIMEOUT_MS }, async (context) => {
    // Sockets are made below it, and their paths are short.
    const dir = await mkdtemp(join(tmpdir(), "t-"));
    const testId = randomBytes(8).toString("hex");
    const before = await networkObjects();
    const cleanUps: (() => unknown)[] = [];
    const previous = { TMPDIR: process.env["TMPDIR"], BELLJAR_TEST_ID: process.env["BELLJAR_TEST_ID"] };
    await mkdir(join(dir, "tmp"));
    process.env["TMPDIR"] = join(dir, "tmp");
    process.env["BELLJAR_TEST_ID"] = testId;
    const problems: unknown[] = [];
    try {
      await work({
        testId,
        dir,
        after: (cleanUp) => cleanUps.push(cleanUp),
        diagnostic: (message) => context.diagnostic(message),
      });
    } catch (error) {
      problems.push(error);
    }
    for (const cleanUp of cleanUps.reverse()) {
      try {
        await cleanUp();
      } catch (error) {
        problems.push(error);
      }
    }
    restore("TMPDIR", previous.TMPDIR);
    restore("BELLJAR_TEST_ID", previous.BELLJAR_TEST_ID);
    const leaks = await lookAgain(async () => {
      const temporary = await readdir(join(dir, "tmp"));
      return [...(await findLeaks({ testId, dir, before })), ...temporary.map((file) => `temporary file ${file}`)];
    });
    if (leaks.length > 0) await endLeaks({ testId, dir });
    // Never into a mount: what is there may be the host's.
    if (!leaks.some((leak) => leak.startsWith("mount "))) {
      await rm(dir, { recursive: true, force: true }).catch((error: unknown) => leaks.push(String(error)));
    }
    if (leaks.length > 0) problems.push(new Error(`the test left behind: ${leaks.join("; ")}`));
    if (problems.length === 1) throw problems[0];
    if (problems.length > 1) throw new AggregateError(problems, problems.map(String).join("\n"));
  });
}

function restore(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}

let directories = 0;

/** A new empty directory of the test; removed with it. */
export async function tempDir(t: TestScope): Promise<string> {
  directories += 1;
  const dir = join(t.dir, `d${directories}`);
  await mkdir(dir);
  return dir;
}
