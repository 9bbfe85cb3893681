/** A runtime in the test's own process, with state of its own and the templates of the whole run; its sandboxes go with the test. */
import { silentLog } from "../../src/base/index.ts";
import { Runtime, resolvePaths } from "../../src/sdk/index.ts";
import { type TestScope, tempDir } from "./harness.ts";

/** @param spareCount VMMs that wait for copies */
export async function openEmbedded(t: TestScope, spareCount = 0): Promise<Runtime> {
  const paths = resolvePaths({ root: await tempDir(t) }, { ...process.env, BELLJAR_RUN: await tempDir(t) }, 0);
  const shared = resolvePaths({}, process.env, 0);
  const runtime = await Runtime.open({ paths: { ...paths, templates: shared.templates }, log: silentLog, spareCount });
  t.after(async () => {
    for (const { id } of await runtime.sandboxes.list())
      await (await runtime.sandboxes.get(id)).delete({ force: true });
    await runtime[Symbol.asyncDispose]();
  });
  return runtime;
}
