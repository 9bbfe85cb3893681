/** A daemon whose sandboxes are fakes, at the places where the command line of a test looks for it. */
import { mkdir } from "node:fs/promises";
import { silentLog } from "../../src/base/index.ts";
import { resolvePaths, startDaemon } from "../../src/sdk/index.ts";
import { FakeRuntime } from "./fake-runtime.ts";
import { cliEnvironment, type TestScope } from "./harness.ts";

export async function serveFake(t: TestScope): Promise<FakeRuntime> {
  const { root, run } = resolvePaths({}, cliEnvironment(t), process.getuid?.() ?? 0);
  for (const dir of [root, run]) await mkdir(dir, { recursive: true });
  const fake = new FakeRuntime();
  const daemon = await startDaemon({ root, runDir: run, log: silentLog, openRuntime: async () => fake });
  t.after(() => daemon.stop());
  return fake;
}
