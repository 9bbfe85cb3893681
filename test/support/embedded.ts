/** A runtime in the test's own process, with state of its own and the templates of the whole run; its sandboxes go with the test. */
import { type Log, silentLog } from "../../src/base/index.ts";
import { type Paths, Runtime, resolvePaths } from "../../src/sdk/index.ts";
import { type TestScope, tempDir } from "./harness.ts";

interface EmbeddedOptions {
  /** VMMs that wait for copies. */
  readonly spareCount?: number;
  readonly log?: Log;
  readonly paths?: Paths;
}

/** Where such a runtime keeps what it has. */
export async function embeddedPaths(t: TestScope): Promise<Paths> {
  const paths = resolvePaths({ root: await tempDir(t) }, { ...process.env, BELLJAR_RUN: await tempDir(t) }, 0);
  const shared = resolvePaths({}, process.env, 0);
  return { ...paths, templates: shared.templates };
}

export async function openEmbedded(
  t: TestScope,
  { spareCount = 0, log = silentLog, paths }: EmbeddedOptions = {},
): Promise<Runtime> {
  const runtime = await Runtime.open({ paths: paths ?? (await embeddedPaths(t)), log, spareCount });
  t.after(async () => {
    for (const { id } of await runtime.sandboxes.list())
      await (await runtime.sandboxes.get(id)).delete({ force: true });
    await runtime[Symbol.asyncDispose]();
  });
  return runtime;
}
