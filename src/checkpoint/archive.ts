/**
 * A checkpoint as one file, to be restored on another host: a tar of its directory, holes kept, and of the layers that its containers
 * lie over. It carries the memory that it was started from; the guest image it names, which is built from the same inputs anywhere.
 *
 * What is taken in may come from anybody: only regular files under names that a checkpoint has are unpacked, and every byte is compared
 * with the manifest before the checkpoint is there. That the manifest itself is the one that was written, nobody can say.
 */
import { access, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { BelljarError, checkpointLimits, hasErrno, runTool, type ToolResult } from "../base/index.ts";
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
  await checkTarget(path);
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
      await create([...how, `--file=${whole}`, ...parts], path, signal);
      await packFile(whole, partial, signal);
    } else {
      // It has all that the sandbox had in its memory.
      await writeFile(partial, "", { flag: "wx", mode: 0o600 });
      await create([...how, `--file=${partial}`, ...parts], path, signal);
    }
    await using file = await open(partial, "r");
    await file.sync();
    await rename(partial, path);
    await syncDirectory(dirname(path));
  } finally {
    await rm(partial, { force: true });
  }
  return state;
}

/** Before anything is read. @throws BelljarError `INVALID_ARGUMENT` */
async function checkTarget(path: string): Promise<void> {
  const refuse = (why: string): BelljarError => {
    return new BelljarError("INVALID_ARGUMENT", `${path} cannot be written: ${why}`, { facts: { path } });
  };
  const isDirectory = async (where: string): Promise<boolean> => {
    return await stat(where).then(
      (found) => found.isDirectory(),
      () => false,
    );
  };
  if (await isDirectory(path)) throw refuse("it is a directory");
  if (!(await isDirectory(dirname(path)))) throw refuse(`there is no directory ${dirname(path)}`);
}

/** @throws BelljarError `CHECKPOINT_CORRUPT`, `CHECKPOINT_INCOMPLETE`, `CHECKPOINT_EXISTS`, `DISK_FULL`; nothing is left then */
export async function importCheckpoint(
  store: CheckpointStore,
  path: string,
  signal?: AbortSignal,
): Promise<CheckpointState> {
  try {
    return await takeIn(store, path, signal);
  } catch (thrown) {
    const { reason, message, facts, cause } = BelljarError.from(thrown);
    if (reason !== "CHECKPOINT_CORRUPT") throw thrown;
    // There is nothing here to be removed.
    const remedy = "Have it written again by `belljar checkpoint export`, and compare the files.";
    throw new BelljarError(reason, message, { facts, cause, remedy });
  }
}

async function takeIn(store: CheckpointStore, path: string, signal?: AbortSignal): Promise<CheckpointState> {
  await access(path).catch((cause: unknown) => {
    throw new BelljarError("INVALID_ARGUMENT", `${path} cannot be read`, { facts: { path }, cause });
  });
  await using unpacked = await store.temporary(signal);
  const archive = (await isPacked(path)) ? join(unpacked.dir, "archive") : path;
  if (archive !== path) await unpackFile(path, archive, checkpointLimits.archiveMaxBytes, signal);
  await checkEntries(archive, path, signal);
  await using temporary = await store.temporary(signal);
  const { dir } = temporary;
  const how = ["--extract", "--sparse", "--no-same-owner", "--no-same-permissions", "--delay-directory-restore"];
  await extract([...how, `--file=${archive}`, "-C", dir], path, signal);
  return await store.accept(dir, signal);
}

/** Before anything is unpacked. @throws BelljarError `CHECKPOINT_CORRUPT` */
async function checkEntries(archive: string, path: string, signal: AbortSignal | undefined): Promise<void> {
  const listed = await extract(["--list", "--verbose", "--quoting-style=escape", `--file=${archive}`], path, signal);
  const lines = listed.split("\n").filter((line) => line !== "");
  if (lines.length > checkpointLimits.archiveEntriesMax) throw refused(path, "it has too many entries");
  for (const line of lines) {
    // Type and mode, owner, size, date, time, name.
    const [, type, name = ""] = /^(.)\S+ +\S+ +\S+ +\S+ +\S+ (.*)$/.exec(line) ?? [];
    if ((type === "-" || type === "d") && ENTRY.test(name)) continue;
    throw refused(path, `${JSON.stringify(name.slice(0, 200))} has no place in a checkpoint`);
  }
}

/** What tar says of a file whose time of change is another one afterwards. */
const CHANGED = /: file changed as we read it$/;

/**
 * Files of checkpoints never change, but get and lose names while they are read: that of the memory has one more for each sandbox that is
 * started from it. To tar that is a change, and a status of 1.
 */
async function create(args: readonly string[], path: string, signal: AbortSignal | undefined): Promise<void> {
  const failed = (cause: BelljarError): BelljarError =>
    new BelljarError("HOST_TOOL_FAILED", `${path} cannot be written`, { facts: { path }, cause });
  const { stderr, exitCode } = await tar(args, signal, failed, [0, 1]);
  const said = stderr.split("\n").filter((line) => line !== "" && !CHANGED.test(line));
  if (exitCode === 0 || said.length === 0) return;
  throw failed(new BelljarError("HOST_TOOL_FAILED", `tar ended with status ${exitCode}: ${said.slice(-3).join("; ")}`));
}

async function extract(args: readonly string[], path: string, signal: AbortSignal | undefined): Promise<string> {
  const { stdout } = await tar(args, signal, (cause) => {
    return new BelljarError("CHECKPOINT_CORRUPT", `${path} is no checkpoint that can be read`, {
      facts: { path },
      cause,
    });
  });
  return stdout.toString("utf8");
}

async function tar(
  args: readonly string[],
  signal: AbortSignal | undefined,
  failed: (cause: BelljarError) => BelljarError,
  successStatuses: readonly number[] = [0],
): Promise<ToolResult> {
  try {
    return await runTool("tar", args, { signal, timeoutMs: checkpointLimits.archiveTimeoutMs, successStatuses });
  } catch (thrown) {
    const error = BelljarError.from(thrown);
    if (/No space left on device|Disk quota exceeded/.test(error.message) || hasErrno(error.cause, "ENOSPC")) {
      throw new BelljarError("DISK_FULL", "no room is left for the checkpoint", { cause: error });
    }
    throw error.reason === "HOST_TOOL_FAILED" ? failed(error) : error;
  }
}

function refused(path: string, why: string): BelljarError {
  return new BelljarError("CHECKPOINT_CORRUPT", `${path} is no checkpoint: ${why}`, { facts: { path } });
}
