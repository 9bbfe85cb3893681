/**
 * Control groups of the guest. All containers live below one group whose memory is bounded a little under what the guest has:
 * when the workload needs more than there is, the kernel kills in there and not the agent.
 *
 *     /sys/fs/cgroup/belljar              all containers: memory.max
 *     /sys/fs/cgroup/belljar/ID           one container; stays until it is removed, and keeps its counts
 *     /sys/fs/cgroup/belljar/ID/run       made by crun, and removed by it when the init process ends
 */
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { hasErrno } from "../src/base/errors.ts";

const TOP = "belljar";
const CONTROLLERS = ["cpu", "cpuset", "io", "memory", "pids"];
/** What the agent and the kernel may need on top of what they use when the agent starts. */
const RESERVE_BYTES = 24 * 1024 * 1024;
/** Killed processes are gone a moment later. */
const REMOVE_TRIES = 100;
const REMOVE_PAUSE_MS = 20;

export class Cgroups {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** @param availableBytes memory that is available before any container runs */
  async prepare(availableBytes: number): Promise<void> {
    await mkdir(join(this.#root, TOP), { recursive: true });
    for (const dir of [this.#root, join(this.#root, TOP)]) {
      for (const controller of CONTROLLERS) {
        // A kernel without one of them can do without its limits.
        await setFile(join(dir, "cgroup.subtree_control"), `+${controller}`).catch(() => {});
      }
    }
    const maxBytes = Math.max(availableBytes - RESERVE_BYTES, RESERVE_BYTES);
    await setFile(join(this.#root, TOP, "memory.max"), String(maxBytes)).catch(() => {});
  }

  async create(containerId: string): Promise<void> {
    await mkdir(this.#dir(containerId), { recursive: true });
  }

  /** What crun is told: a path below the root of the hierarchy. */
  cgroupsPath(containerId: string): string {
    return `/${TOP}/${containerId}/run`;
  }

  /** How many processes of the container the kernel has killed for lack of memory. */
  async oomKills(containerId: string): Promise<number> {
    const text = await readFile(join(this.#dir(containerId), "memory.events"), "utf8").catch(() => "");
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
  }

  /** Pids of all its processes, in the guest's own namespace. */
  async pids(containerId: string): Promise<number[]> {
    const text = await readFile(join(this.#dir(containerId), "run/cgroup.procs"), "utf8").catch(() => "");
    return text
      .split("\n")
      .map(Number)
      .filter((pid) => pid > 0);
  }

  /** Kills everything in the container at once. */
  async kill(containerId: string): Promise<void> {
    await setFile(join(this.#dir(containerId), "cgroup.kill"), "1").catch((error: unknown) => {
      if (!hasErrno(error, "ENOENT") && !hasErrno(error, "ENODEV")) throw error;
    });
  }

  async remove(containerId: string): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      try {
        await removeTree(this.#dir(containerId));
        return;
      } catch (error) {
        if (hasErrno(error, "ENOENT")) return;
        if (!hasErrno(error, "EBUSY") || tries >= REMOVE_TRIES) throw error;
      }
      await this.kill(containerId);
      await sleep(REMOVE_PAUSE_MS);
    }
  }

  #dir(containerId: string): string {
    return join(this.#root, TOP, containerId);
  }
}

/** Writes to a file that the kernel has made, and never makes one. */
async function setFile(path: string, value: string): Promise<void> {
  await writeFile(path, value, { flag: "r+" });
}

/** Groups are directories whose files cannot be removed: only they can, from the leaves up. */
async function removeTree(dir: string): Promise<void> {
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeTree(join(dir, entry.name));
  }
  await rmdir(dir);
}
