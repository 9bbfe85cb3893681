/**
 * Locks between processes that the kernel frees when their owner dies, however it dies. The owner opens the lock file and
 * lends the descriptor to the `flock` program, which locks the open file description and ends; the lock lives as long as
 * the owner's descriptor. docs/decisions/locks.md says why this and not something else.
 *
 * Invariants: a lock file is never removed nor replaced (two processes would hold "the" lock on two files), and nothing else
 * keeps data in it than the pid of the last exclusive owner, for messages only.
 */

import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { BelljarError, cancelledError, hasErrno, publishStep, throwIfAborted } from "../base/index.ts";

export interface LockOptions {
  /** Any number of shared owners, or one exclusive owner. */
  readonly mode: "exclusive" | "shared";
  /** How long to wait for other owners; 0 tries once. */
  readonly timeoutMs: number;
  /** What is locked, as it completes "another process uses ...". */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
}

export interface FileLock extends AsyncDisposable {
  readonly path: string;
  readonly mode: "exclusive" | "shared";
  /** Idempotent. */
  release(): Promise<void>;
}

/** Keeps the descriptors of held locks reachable: a collected FileHandle would close itself and lose the lock. */
const held = new Set<FileHandle>();

/** Status by which `flock` says that time ran out; one that no other failure of it uses. */
const TIMED_OUT_STATUS = 75;

/**
 * @throws BelljarError `LOCKED` when other owners keep the lock past the time limit (facts: path, and pid where it is known),
 * `HOST_TOOL_MISSING`, `HOST_TOOL_FAILED`, `CANCELLED`
 */
export async function acquireLock(path: string, options: LockOptions): Promise<FileLock> {
  throwIfAborted(options.signal);
  const file = await openLockFile(path, options.mode);
  try {
    const gotIt = await lockDescriptor(file.fd, options);
    if (!gotIt) throw await lockedError(path, options);
    if (options.mode === "exclusive") await writeOwner(file);
  } catch (error) {
    await file.close();
    throw error;
  }
  held.add(file);
  const release = async (): Promise<void> => {
    // Closing the last descriptor of the open file description is what unlocks.
    if (held.delete(file)) await file.close();
  };
  return { path, mode: options.mode, release, [Symbol.asyncDispose]: release };
}

/** Runs `work` under the lock and releases it, whatever comes of the work. */
export async function withLock<T>(path: string, options: LockOptions, work: () => Promise<T>): Promise<T> {
  await using _lock = await acquireLock(path, options);
  return await work();
}

/** A shared owner changes nothing: a file system that has become read-only does not keep it from reading. */
async function openLockFile(path: string, mode: LockOptions["mode"]): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    if (mode === "exclusive" || !hasErrno(error, "EROFS")) throw error;
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  }
}

async function lockDescriptor(fd: number, options: LockOptions): Promise<boolean> {
  // A signal that fired while the file was opened fires no event any more.
  throwIfAborted(options.signal);
  const wait = options.timeoutMs <= 0 ? ["--nonblock"] : ["--timeout", (options.timeoutMs / 1000).toFixed(3)];
  const kind = options.mode === "exclusive" ? "--exclusive" : "--shared";
  // Not runTool: the child must inherit one more descriptor, as its number 3. `flock` has the deadline itself.
  const child = spawn("flock", [kind, ...wait, "--conflict-exit-code", String(TIMED_OUT_STATUS), "3"], {
    env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C" },
    stdio: ["ignore", "ignore", "ignore", fd],
  });
  const onAbort = (): boolean => child.kill("SIGKILL");
  options.signal?.addEventListener("abort", onAbort, { once: true });
  try {
    const end = new Promise<number | string | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => resolve(code ?? signal));
    });
    const status = await publishStep("child", "flock", () => end);
    if (options.signal?.aborted === true) throw cancelledError(options.signal);
    if (status === 0) return true;
    if (status === TIMED_OUT_STATUS) return false;
    throw new BelljarError("HOST_TOOL_FAILED", `flock ended with status ${status}`, {
      facts: { tool: "flock", status: String(status) },
    });
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
    throw new BelljarError("HOST_TOOL_MISSING", "the program flock is not installed (Debian package util-linux)", {
      facts: { tool: "flock", package: "util-linux" },
      cause: error,
    });
  } finally {
    options.signal?.removeEventListener("abort", onAbort);
  }
}

async function writeOwner(file: FileHandle): Promise<void> {
  await file.truncate(0);
  await file.write(`${process.pid}\n`, 0);
}

async function lockedError(path: string, options: LockOptions): Promise<BelljarError> {
  const owner = Number.parseInt((await readFile(path, "utf8").catch(() => "")).slice(0, 16), 10);
  const named = Number.isInteger(owner) && owner > 0;
  const who = named ? `another process (last known owner: pid ${owner})` : "another process";
  return new BelljarError("LOCKED", `${who} uses ${options.what} and did not let go within ${options.timeoutMs} ms`, {
    facts: { path, timeoutMs: options.timeoutMs, ...(named ? { ownerPid: owner } : {}) },
  });
}
