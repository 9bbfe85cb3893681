/**
 * QEMU as a process of this host: started in a session of its own, so that it outlives us; known by pid and start time;
 * reaped where it is our child. Its output goes to a file, since a pipe would end with us.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { open } from "node:fs/promises";
import {
  BelljarError,
  goWithGuests,
  hasErrno,
  identifyProcess,
  isAlive,
  type ProcessIdentity,
  signalProcess,
  systemClock,
  vmmLimits,
} from "../../base/index.ts";

export interface VmmProcess {
  readonly identity: ProcessIdentity;
  /** Settles, never rejects, when the process is gone; in words, such as "ended with status 1". */
  readonly ended: Promise<string>;
  /** Stops watching; the process runs on. */
  release(): void;
}

/** @throws BelljarError `VMM_MISSING`, `VMM_START_FAILED` */
export async function spawnVmm(
  binary: string,
  args: readonly string[],
  logPath: string,
  networkNamespace?: string | undefined,
): Promise<VmmProcess> {
  // It enters the namespace and becomes QEMU: the same process, so that what is known of it stays true.
  const [program, ...words] =
    networkNamespace === undefined
      ? [binary, ...args]
      : ["nsenter", `--net=${networkNamespace}`, "--", binary, ...args];
  const log = await open(logPath, "a", 0o600);
  let child: ChildProcess;
  let ended: Promise<string>;
  try {
    // Appending, so that the file can be emptied while it is written to.
    await log.truncate(0);
    child = spawn(program, words, {
      detached: true,
      cwd: "/",
      stdio: ["ignore", log.fd, log.fd],
      // Not the caller's environment: a guest that takes over its VMM should find no secrets there.
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
    });
    goWithGuests(child.pid);
    ended = new Promise((resolve) => {
      child.on("exit", (code, signal) => {
        resolve(code === null ? `was ended by ${signal}` : `ended with status ${code}`);
      });
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
  } catch (error) {
    if (hasErrno(error, "ENOENT")) throw missing(binary, error);
    throw new BelljarError("VMM_START_FAILED", `QEMU (${binary}) could not be started`, { cause: error });
  } finally {
    await log.close();
  }
  const identity = child.pid === undefined ? undefined : await identifyProcess(child.pid);
  if (identity === undefined) throw new BelljarError("VMM_START_FAILED", `QEMU ${await ended} at once`);
  return { identity, ended, release: () => child.unref() };
}

export function missing(binary: string, cause?: unknown): BelljarError {
  return new BelljarError("VMM_MISSING", `QEMU (${binary}) is not installed`, { facts: { binary }, cause });
}

/**
 * Watches a process that another one started. There is nothing to wait on, so `hint` (the end of its control connection)
 * says when to look; a process that is still there then is looked at until it is gone.
 */
export function adoptVmm(identity: ProcessIdentity, hint: Promise<unknown>): VmmProcess {
  const released = new AbortController();
  const watch = async (): Promise<string> => {
    await hint;
    await untilGone(identity, Number.POSITIVE_INFINITY, released.signal);
    return "ended";
  };
  return { identity, ended: watch().catch(() => new Promise(() => {})), release: () => released.abort() };
}

/** Waits until a process is gone, at most this long; answers whether it is. */
export async function untilGone(identity: ProcessIdentity, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
  const start = systemClock.monotonicMs();
  while (await isAlive(identity)) {
    const waitedMs = systemClock.monotonicMs() - start;
    if (waitedMs > timeoutMs) return false;
    // Short steps at first, when it is about to go; long ones for one that stays.
    await systemClock.sleep(Math.max(vmmLimits.pollIntervalMs, Math.min(waitedMs / 4, 500)), signal);
  }
  return true;
}

/** Ends a process at once and waits until the kernel has removed it. */
export async function killProcess(identity: ProcessIdentity): Promise<void> {
  await signalProcess(identity, "SIGKILL");
  if (await untilGone(identity, vmmLimits.killTimeoutMs)) return;
  throw new BelljarError("INTERNAL", `process ${identity.pid} is still there after SIGKILL`, {
    facts: { pid: identity.pid, timeoutMs: vmmLimits.killTimeoutMs },
  });
}
