/**
 * A checkpoint that sandboxes are started from again and again: its memory lies in one file, which all of them map and share until they
 * change it, so that a start puts no pages anywhere. Like every checkpoint it never changes.
 */
import { createReadStream, createWriteStream } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { messageChain, runTool, sandboxLimits } from "../base/index.ts";
import type { HostSandbox } from "../container/index.ts";
import { checkCheckpointable } from "./blockers.ts";
import { files } from "./checkpoint-files.ts";
import { laySnapshot } from "./laid-snapshot.ts";
import { countPages, type GuestMemory, PAGE_BYTES } from "./memory/index.ts";
import type { Snapshot } from "./snapshot.ts";

/** Of a snapshot whose files are in `dir`, a checkpoint that is not published yet. */
export async function warmSnapshot(
  memory: GuestMemory,
  snapshot: Snapshot,
  dir: string,
  signal?: AbortSignal,
): Promise<Snapshot> {
  const path = join(dir, files.base);
  const laying = join(dir, "laying");
  const base = snapshot.memory === undefined ? undefined : { path };
  const laid = await laySnapshot(memory, { ...snapshot, memory: base }, laying, signal);
  if (laid.memory === undefined) return laid;
  // Pages of zeros need no room, on disk or in the page cache.
  await runTool("fallocate", ["--dig-holes", laying], { signal });
  await rename(laying, path);
  const pagesPath = join(dir, files.pages);
  await dropBeginning(snapshot.pagesPath, laid.pagesAt, countPages(laid.pages) * PAGE_BYTES, join(dir, "rest"), signal);
  await rename(join(dir, "rest"), pagesPath);
  return { ...laid, memory: { path }, pagesPath, pagesAt: 0 };
}

/**
 * Has a process wait in each of its containers, which the copies have too: the first command in one of them need not be set up. A container in
 * which none can wait does without.
 * @throws BelljarError `NOT_CHECKPOINTABLE`
 */
export async function prepareCommands(sandbox: HostSandbox, signal?: AbortSignal): Promise<void> {
  // None is left in one of which no checkpoint can be made.
  checkCheckpointable(sandbox.state);
  if (sandbox.state.state !== "running") return;
  for (const { id, state } of sandbox.state.containers) {
    if (state !== "running") continue;
    const options = { signal, timeoutMs: sandboxLimits.launchCallTimeoutMs };
    await sandbox.call("prepareProcess", { containerId: id }, options).catch((error: unknown) => {
      sandbox.log.debug("no process waits in a container", { container: id, cause: messageChain(error).join(": ") });
    });
  }
}

async function dropBeginning(from: string, at: number, bytes: number, to: string, signal?: AbortSignal): Promise<void> {
  if (bytes === 0) return await writeFile(to, "", { flag: "wx", mode: 0o600 });
  const rest = createReadStream(from, { start: at, end: at + bytes - 1 });
  await pipeline(rest, createWriteStream(to, { flags: "wx", mode: 0o600 }), { signal });
}
