/**
 * Locks of sandboxes' directories that are taken before there are the sandboxes. Each costs a child process, for which whatever waits for a
 * sandbox has the time.
 *
 * Invariant: a lock that was made ready is held by this process until the sandbox that takes it lets go of it, or it is given up.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { acquireLock, type FileLock } from "../store/index.ts";
import { unfinishedDir } from "./record.ts";

export class ReadyLocks {
  readonly #sandboxesDir: string;
  /** By the path that each will have. */
  readonly #locks = new Map<string, FileLock>();

  constructor(sandboxesDir: string) {
    this.#sandboxesDir = sandboxesDir;
  }

  /** In the directory that becomes the sandbox's. @throws what `acquireLock` throws; nothing is left then */
  async prepare(id: string): Promise<void> {
    const dir = unfinishedDir(this.#sandboxesDir, id);
    await mkdir(dir, { recursive: true, mode: 0o700 });
    try {
      const what = `sandbox ${id}`;
      const lock = await acquireLock(join(dir, "lock"), { mode: "exclusive", timeoutMs: 0, what });
      this.#locks.set(this.#pathOf(id), lock);
    } catch (error) {
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /** The sandbox did not come to be. One that has taken its lock keeps it, and its directory. */
  async giveUp(id: string): Promise<void> {
    const path = this.#pathOf(id);
    const lock = this.#locks.get(path);
    if (lock === undefined) return;
    this.#locks.delete(path);
    await rm(unfinishedDir(this.#sandboxesDir, id), { recursive: true, force: true });
    await lock.release();
  }

  /** Whatever is not ready is taken as ever. */
  readonly acquire: typeof acquireLock = async (path, options) => {
    const lock = options.mode === "exclusive" ? this.#locks.get(path) : undefined;
    if (lock === undefined) return await acquireLock(path, options);
    this.#locks.delete(path);
    return lock;
  };

  #pathOf(id: string): string {
    return join(this.#sandboxesDir, id, "lock");
  }
}
