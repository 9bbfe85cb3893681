/**
 * Programs of containers that are run when the sandbox is about to be frozen and when it goes on: executable files with the names
 * below in `/etc/belljar/hooks`, in the image or mounted there. They run as the container's own process does, beside it.
 */
import { lstat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { hasErrno, messageChain } from "../src/base/errors.ts";
import { standstillLimits } from "../src/base/limits.ts";
import type { GuestProcess } from "./process.ts";
import { SIGKILL, sendSignal } from "./signals.ts";

export type HookName = "before-save" | "after-resume" | "after-restore";

export interface HookFailure {
  readonly containerId: string;
  readonly hook: HookName;
  readonly message: string;
}

/** A container whose first process runs. */
export interface HookPlace {
  readonly containerId: string;
  /** Where the agent sees the container's root as its processes do. */
  readonly root: string;
  /** Starts a program of the container. */
  launch(program: string, environment: Readonly<Record<string, string>>): Promise<GuestProcess>;
}

const HOOKS_DIR = "/etc/belljar/hooks";

/** Runs those that there are, and answers which of them failed. Never rejects. */
export async function runHooks(
  places: readonly HookPlace[],
  hook: HookName,
  environment: Readonly<Record<string, string>>,
): Promise<readonly HookFailure[]> {
  if (places.length === 0) return [];
  const endsAtMs = performance.now() + standstillLimits.hooksTimeoutMs;
  const failures: HookFailure[] = [];
  const waiting = [...places];
  const worker = async (): Promise<void> => {
    for (let place = waiting.shift(); place !== undefined; place = waiting.shift()) {
      const message = await runHook(place, `${HOOKS_DIR}/${hook}`, environment, endsAtMs).catch((error: unknown) =>
        messageChain(error).join(": "),
      );
      if (message === undefined || failures.length >= standstillLimits.hookFailuresMax) continue;
      const { containerId } = place;
      failures.push({ containerId, hook, message: message.slice(0, standstillLimits.hookMessageMaxLength) });
    }
  };
  await Promise.all(Array.from({ length: standstillLimits.hooksAtOnce }, worker));
  return failures;
}

/** Answers what went wrong. */
async function runHook(
  place: HookPlace,
  program: string,
  environment: Readonly<Record<string, string>>,
  endsAtMs: number,
): Promise<string | undefined> {
  const there = await within(isThere(place.root + program), standstillLimits.hookLookTimeoutMs);
  if (there === undefined) return "nobody answers whether it is there";
  if (!there) return undefined;
  const launching = place.launch(program, environment);
  const process = await within(launching, endsAtMs - performance.now());
  if (process === undefined) {
    // Its start is over some time; then it ends.
    launching.then(({ pid }) => sendSignal(pid, SIGKILL)).catch(() => {});
    return "it could not be started in time";
  }
  const end = await within(process.ended, endsAtMs - performance.now());
  if (end === undefined) {
    sendSignal(process.pid, SIGKILL);
    return "it did not end in time, and was killed";
  }
  if (end.exitCode === 0) return undefined;
  const words = end.launchError || process.output(2).head.toString().trim();
  return `it ended with status ${end.exitCode}${words === "" ? "" : `: ${words}`}`;
}

/** A link counts, wherever it leads: only the container's own processes can follow it. */
async function isThere(path: string): Promise<boolean> {
  try {
    const stats = await lstat(path);
    return stats.isSymbolicLink() || (stats.isFile() && (stats.mode & 0o111) !== 0);
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ELOOP", "EACCES"].some((errno) => hasErrno(error, errno))) return false;
    throw error;
  }
}

/** Undefined when it takes longer. */
async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  const given = new AbortController();
  const late = sleep(Math.max(timeoutMs, 0), undefined, { signal: given.signal }).catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    given.abort();
  }
}
