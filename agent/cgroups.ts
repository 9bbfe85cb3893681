/**
 * Control groups of the guest. All containers live below one group whose memory is bounded a little under what the guest has:
 * when the workload needs more than there is, the kernel kills in there and not the agent.
 *
 *     /sys/fs/cgroup/agent                the agent, which a copy has stand still until somebody wants something of it
 *     /sys/fs/cgroup/belljar              all containers: memory.max
 *     /sys/fs/cgroup/belljar/ID           one container; stays until it is removed, keeps its counts, and is what is frozen
 *     /sys/fs/cgroup/belljar/ID/run       made by crun with the container's limits, removed by it when the init process ends
 */
import { readFileSync } from "node:fs";
import { mkdir, readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { standstillLimits } from "../src/base/limits.ts";
import type { PlannedFile } from "../src/protocol/wake.ts";
import { parseCounts, readOrNothing, setFile, setFileNow } from "./cgroup-files.ts";
import { type LimitChanges, updateLimits } from "./cgroup-limits.ts";
import { type ContainerStats, readStats } from "./cgroup-stats.ts";
import { readNow } from "./read-now.ts";

const TOP = "belljar";
const AGENT = "agent";
const CONTROLLERS = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];
/** What the agent and the kernel may need on top of what they use when the agent starts. */
const RESERVE_BYTES = 24 * 1024 * 1024;
/** Killed processes are gone a moment later. */
const REMOVE_TRIES = 100;
const REMOVE_PAUSE_MS = 20;
const FREEZE_PAUSE_MS = 5;
/** Looks after a millisecond each before that. */
const FREEZE_QUICK_LOOKS = 20;

export class Cgroups {
  readonly #root: string;
  readonly #freezeTimeoutMs: number;

  constructor(root: string, freezeTimeoutMs: number = standstillLimits.freezeTimeoutMs) {
    this.#root = root;
    this.#freezeTimeoutMs = freezeTimeoutMs;
  }

  async prepare(): Promise<void> {
    await mkdir(join(this.#root, TOP), { recursive: true });
    for (const dir of [this.#root, join(this.#root, TOP)]) {
      for (const controller of CONTROLLERS) {
        // A kernel without one of them can do without its limits.
        await setFile(join(dir, "cgroup.subtree_control"), `+${controller}`).catch(() => {});
      }
    }
  }

  /** This process, and what it starts from now on, gets a group of its own. */
  async takeAgent(): Promise<void> {
    const dir = join(this.#root, AGENT);
    await mkdir(dir, { recursive: true });
    await setFile(join(dir, "cgroup.procs"), String(process.pid));
  }

  /** What has the agent stand still; `0` in the same file has it go on. */
  restPlan(): PlannedFile {
    return { path: join(this.#root, AGENT, "cgroup.freeze"), text: "1" };
  }

  /**
   * Bounds the memory of all containers together; answers the bound.
   * @param availableBytes memory that nothing else than containers needs, but for a reserve
   */
  async bound(availableBytes: number): Promise<number> {
    const maxBytes = Math.max(availableBytes - RESERVE_BYTES, RESERVE_BYTES);
    await setFile(join(this.#root, TOP, "memory.max"), String(maxBytes)).catch(() => {});
    return maxBytes;
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
    const events = parseCounts(readNow(join(this.#dir(containerId), "memory.events")));
    return Number(events.get("oom_kill") ?? 0n);
  }

  /** Pids of all its processes, in the guest's own namespace. */
  async pids(containerId: string): Promise<number[]> {
    const text = await readOrNothing(join(this.#runDir(containerId), "cgroup.procs"));
    return text
      .split("\n")
      .map(Number)
      .filter((pid) => pid > 0);
  }

  /** Kills everything in the container at once, frozen or not. */
  async kill(containerId: string): Promise<void> {
    await setFile(join(this.#dir(containerId), "cgroup.kill"), "1").catch((error: unknown) => {
      if (!hasErrno(error, "ENOENT") && !hasErrno(error, "ENODEV")) throw error;
    });
  }

  /** Resolves when every process of the container stands still. Thaws them again when they do not within the deadline. */
  async freeze(containerId: string): Promise<void> {
    await this.#freeze(this.#dir(containerId), `the processes of the container ${containerId}`);
  }

  async thaw(containerId: string): Promise<void> {
    setFileNow(join(this.#dir(containerId), "cgroup.freeze"), "0");
  }

  /** As `freeze`, for all containers at once; those that are frozen by themselves stay so when all are thawed. */
  async freezeAll(signal: AbortSignal): Promise<void> {
    await this.#freeze(join(this.#root, TOP), "the processes of the containers", signal);
  }

  async thawAll(): Promise<void> {
    const { path, text } = this.thawPlan();
    setFileNow(path, text);
  }

  /** What `thawAll` writes. */
  thawPlan(): PlannedFile {
    return { path: join(this.#root, TOP, "cgroup.freeze"), text: "0" };
  }

  /** Of a container that runs: `run` must be there. @throws BelljarError `INVALID_ARGUMENT`; nothing has changed then */
  async update(containerId: string, changes: LimitChanges): Promise<void> {
    await updateLimits(this.#runDir(containerId), changes);
  }

  async stats(containerId: string): Promise<ContainerStats> {
    return await readStats({ total: this.#dir(containerId), limited: this.#runDir(containerId) });
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

  async #freeze(dir: string, who: string, signal?: AbortSignal): Promise<void> {
    setFileNow(join(dir, "cgroup.freeze"), "1");
    const deadlineMs = performance.now() + this.#freezeTimeoutMs;
    for (let looks = 0; ; looks += 1) {
      const events = parseCounts(readFileSync(join(dir, "cgroup.events"), "utf8"));
      if (events.get("frozen") === 1n) return;
      if (performance.now() >= deadlineMs || signal?.aborted === true) break;
      // Mostly it takes each process no longer than until it has a CPU.
      await sleep(looks < FREEZE_QUICK_LOOKS ? 1 : FREEZE_PAUSE_MS);
    }
    setFileNow(join(dir, "cgroup.freeze"), "0");
    signal?.throwIfAborted();
    throw new BelljarError("DEADLINE_EXCEEDED", `${who} did not stand still within ${this.#freezeTimeoutMs} ms`);
  }

  #dir(containerId: string): string {
    return join(this.#root, TOP, containerId);
  }

  #runDir(containerId: string): string {
    return join(this.#dir(containerId), "run");
  }
}

/** Groups are directories whose files cannot be removed: only they can, from the leaves up. */
async function removeTree(dir: string): Promise<void> {
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeTree(join(dir, entry.name));
  }
  await rmdir(dir);
}
