/**
 * Programs of containers that are run when the sandbox is about to be frozen and when it goes on: executable files with the names
 * below in `/etc/belljar/hooks`, in the image or mounted there. They run as the container's own process does, beside it.
 */
import { lstat } from "node:fs/promises";
import { messageChain } from "../src/base/errors.ts";
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

/** The hooks of one container. */
export interface Hooks {
  readonly place: HookPlace;
  readonly names: ReadonlySet<HookName>;
}

const HOOKS_DIR = "/etc/belljar/hooks";
const HOOK_NAMES = ["before-save", "after-resume", "after-restore"] as const;

/** Which hooks there are; containers without any are left out, and so are those that do not say. */
export async function findHooks(places: readonly HookPlace[]): Promise<readonly Hooks[]> {
  const found = places.map(async (place): Promise<readonly Hooks[]> => {
    const names = await within(namesAt(place.root), standstillLimits.hookLookTimeoutMs).catch(() => undefined);
    return names === undefined || names.length === 0 ? [] : [{ place, names: new Set(names) }];
  });
  return (await Promise.all(found)).flat();
}

/** Runs one hook of all containers that have it, and answers where it failed. Never rejects. */
export async function runHooks(
  hooks: readonly Hooks[],
  hook: HookName,
  environment: Readonly<Record<string, string>>,
  timeoutMs: number = standstillLimits.hooksTimeoutMs,
): Promise<readonly HookFailure[]> {
  const waiting = hooks.filter(({ names }) => names.has(hook));
  if (waiting.length === 0) return [];
  const endsAtMs = performance.now() + timeoutMs;
  const failures: HookFailure[] = [];
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const program = `${HOOKS_DIR}/${hook}`;
      const message = await runHook(next.place, program, environment, endsAtMs).catch((error: unknown) =>
        messageChain(error).join(": "),
      );
      if (message === undefined || failures.length >= standstillLimits.hookFailuresMax) continue;
      const { containerId } = next.place;
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

async function namesAt(root: string): Promise<readonly HookName[]> {
  // Nearly always there is none: one look is enough then.
  if (!(await isThere(`${root}${HOOKS_DIR}`, "directory"))) return [];
  const names = await Promise.all(
    HOOK_NAMES.map(async (name) => ((await isThere(`${root}${HOOKS_DIR}/${name}`, "program")) ? [name] : [])),
  );
  return names.flat();
}

/** A link counts as what is looked for, wherever it leads: only the container's own processes can follow it. */
async function isThere(path: string, what: "directory" | "program"): Promise<boolean> {
  try {
    const stats = await lstat(path);
    if (stats.isSymbolicLink()) return true;
    return what === "directory" ? stats.isDirectory() : stats.isFile() && (stats.mode & 0o111) !== 0;
  } catch {
    return false;
  }
}

/** Undefined when it takes longer. */
async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => resolve(undefined), Math.max(timeoutMs, 0));
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
