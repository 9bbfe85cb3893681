/** The lock of a sandbox's directory: `sandboxes/<id>/lock`. */
import { join } from "node:path";
import { BelljarError, hasErrno, sandboxLimits } from "../base/index.ts";
import type { acquireLock, KeptLock, LockOptions } from "../store/index.ts";

/** Exclusive where nobody else has it, since the reader is about to change it; otherwise together with others who read. */
export async function lockToRead(
  lock: typeof acquireLock,
  dir: string,
  id: string,
  kept: KeptLock,
): Promise<AsyncDisposable> {
  const what = `sandbox ${id}, to read it`;
  try {
    return await kept.use(() => lockDirectory(lock, dir, { mode: "exclusive", timeoutMs: 0, what }));
  } catch (error) {
    if (BelljarError.from(error).reason !== "LOCKED") throw error;
    return await lockDirectory(lock, dir, { mode: "shared", timeoutMs: sandboxLimits.recoveryLockTimeoutMs, what });
  }
}

/** Shared for reading, exclusive for changing. */
export async function lockDirectory(
  lock: typeof acquireLock,
  dir: string,
  options: LockOptions,
): Promise<AsyncDisposable> {
  try {
    return await lock(join(dir, "lock"), options);
  } catch (error) {
    const isHarmless = ["ENOENT", "EROFS"].some((errno) => hasErrno(error, errno));
    // Without a directory that can be written there is nothing that another process could lock either.
    if (isHarmless) return { [Symbol.asyncDispose]: async () => {} };
    throw error;
  }
}
