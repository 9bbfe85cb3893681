/** A daemon for one measurement: of a root of its own, started by whoever connects first, and ended by the benchmark. */
import { join } from "node:path";
import { identifyProcess, isAlive } from "../src/base/index.ts";
import { type ConnectedRuntime, type Paths, resolvePaths } from "../src/sdk/index.ts";
import { until } from "../test/support/until.ts";

const END_TIMEOUT_MS = 30_000;

/** @param dir of the benchmark. @param name of a root in it */
export function ownPaths(dir: string, name: string): Paths {
  return resolvePaths({ root: join(dir, name), run: join(dir, `${name}-run`) }, process.env, process.getuid?.() ?? 0);
}

/** Its sandboxes, if it has any, run on. */
export async function endDaemon(runtime: ConnectedRuntime): Promise<void> {
  const { pid } = await runtime.daemon();
  const identity = await identifyProcess(pid);
  await runtime[Symbol.asyncDispose]();
  process.kill(pid, "SIGTERM");
  if (identity === undefined) return;
  await until(async () => !(await isAlive(identity)), { timeoutMs: END_TIMEOUT_MS, what: "the daemon's end" });
}
