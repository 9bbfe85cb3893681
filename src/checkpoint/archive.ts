/**
 * A checkpoint as one file, to be restored on another host: a tar of its directory, holes kept, and of the layers that its containers
 * lie over. It carries the memory that it was started from; the guest image it names, which is built from the same inputs anywhere.
 *
 * What is taken in may come from anybody: only regular files under names that a checkpoint has are unpacked, and every byte is compared
 * with the manifest before the checkpoint is there. That the manifest itself is the one that was written, nobody can say.
 */
import { access, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BelljarError, checkpointLimits, hasErrno, runTool } from "../base/index.ts";
import { linkInto } from "../container/index.ts";
import { syncDirectory, TEMPORARY_MARK } from "../store/index.ts";
import type { CheckpointState } from "./checkpoint-state.ts";
import type { CheckpointStore } from "./checkpoint-store.ts";
import { isPacked, packFile, unpackFile } from "./compression.ts";

const LAYER = /^[0-9a-f]{64}\.erofs$/;
/** Names in an archive: a file of the checkpoint, or a directory. */
const ENTRY = /^\.\/(?:(?:[a-zA-Z0-9_-][a-zA-Z0-9._-]*\/){0,4}(?:[a-zA-Z0-9_-][a-zA-Z0-9._-]*)?)$/;

export interface ExportCheckpointOptions {
  readonly compress?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A file that is there is replaced, at the end and at once.
 * @throws BelljarError `CHECKPOINT_CORRUPT`, `CHECKPOINT_INCOMPLETE`, `DISK_FULL`
 */
export async function exportCheckpoint(
  store: CheckpointStore,
  id: string,
  path: string,
  { compress, signal }: ExportCheckpointOptions = {},
): Promise<CheckpointState> {
  const state = await store.verify(id, signal);
  await using temporary = await store.temporary(signal);
  const gathered = temporary.dir;
  const partial = join(dirname(path), `.${basename(path)}${TEMPORARY_MARK}${id}`);
  try {
    for (const layer of state.needs.filter((each) => LAYER.test(basename(each)))) {
      await linkInto(layer, join(gathered, "layers"));
    }
    const hasLayers = (await readdir(gathered)).length > 0;
    const parts = ["-C", store.dirOf(id), "."];
    if (hasLayers) parts.push("-C", gathered, "./layers");
    const how = ["--create", "--sparse", "--format=pax", "--numeric-owner", "--owner=0", "--group=0"];
    if (compress === true) {
      const whole = join(gathered, "archive");
      await tar([...how, `--file=${whole}`, ...parts], signal);
      await packFile(whole, partial, signal);
    } else await tar([...how, `--file=${partial}`, ...parts], signal);
    await using file = await open(partial, "r");
    await file.sync();
    await rename(partial, path);
    await syncDirectory(dirname(path));
  } finally {
    await rm(partial, { force: true });
  }
  return state;
}

/** @throws BelljarError `CHECKPOINT_CORRUPT`, `CHECKPOINT_INCOMPLETE`, `CHECKPOINT_EXISTS`, `DISK_FULL`; nothing is left then */
export async function importCheckpoint(
  store: CheckpointStore,
  path: string,
  signal?: AbortSignal,
): Promise<CheckpointState> {
  await access(path).catch((cause: unknown) => {
    throw new BelljarError("INVALID_ARGUMENT", `${path} cannot be read`, { facts: { path }, cause });
  });
  await using unpacked = await store.temporary(signal);
  const archive = (await isPacked(path)) ? join(unpacked.dir, "archive") : path;
  if (archive !== path) await unpackFile(path, archive, checkpointLimits.archiveMaxBytes, signal);
  await checkEntries(archive, signal);
  await using temporary = await store.temporary(signal);
  const { dir } = temporary;
  const how = ["--extract", "--sparse", "--no-same-owner", "--no-same-permissions", "--delay-directory-restore"];
  await tar([...how, `--file=${archive}`, "-C", dir], signal);
  return await store.accept(dir, signal);
}

/** Before anything is unpacked. @throws BelljarError `CHECKPOINT_CORRUPT` */
async function checkEntries(path: string, signal: AbortSignal | undefined): Promise<void> {
  const listed = await tar(["--list", "--verbose", "--quoting-style=escape", `--file=${path}`], signal);
  const lines = listed.split("\n").filter((line) => line !== "");
  if (lines.length > checkpointLimits.archiveEntriesMax) throw refused(path, "it has too many entries");
  for (const line of lines) {
    // Type and mode, owner, size, date, time, name.
    const [, type, name = ""] = /^(.)\S+ +\S+ +\S+ +\S+ +\S+ (.*)$/.exec(line) ?? [];
    if ((type === "-" || type === "d") && ENTRY.test(name)) continue;
    throw refused(path, `${JSON.stringify(name.slice(0, 200))} has no place in a checkpoint`);
  }
}

async function tar(args: readonly string[], signal: AbortSignal | undefined): Promise<string> {
  try {
    const { stdout } = await runTool("tar", args, { signal, timeoutMs: checkpointLimits.archiveTimeoutMs });
    return stdout.toString("utf8");
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (/No space left on device|Disk quota exceeded/.test(error.message) || hasErrno(error.cause, "ENOSPC")) {
      throw new BelljarError("DISK_FULL", "no room is left for the checkpoint", { cause: error });
    }
    if (error.reason !== "HOST_TOOL_FAILED") throw error;
    throw new BelljarError("CHECKPOINT_CORRUPT", `the archive cannot be read: ${error.message}`, { cause: error });
  }
}

function refused(path: string, why: string): BelljarError {
  return new BelljarError("CHECKPOINT_CORRUPT", `${path} is no checkpoint: ${why}`, { facts: { path } });
}
