/**
 * The control group of a sandbox's VMM on the host, below the group that this process is in itself: what bounds the owner bounds its
 * VMs too, and nobody else's group is touched.
 *
 *     OWN/belljar/ROOT/ID      one in each hierarchy that there is
 *
 * The VMM and all its threads are in it before the guest's first instruction. The state names the directories before they are made,
 * so whoever comes after a kill finds them, wherever it runs itself. A host that has none to give is no error.
 */
import { createHash } from "node:crypto";
import { access, constants, mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { hasErrno, type Log, messageChain, publishStep, resourceLimits } from "../base/index.ts";
import { CONTROLLERS, findHierarchies, type Hierarchy } from "./cgroup-hierarchies.ts";

export interface HostCgroups {
  /** Directories of the group that this sandbox is to have; none where the host has none to give. Nothing is made. */
  plan(id: string): Promise<readonly string[]>;
  /** Makes a group that was planned. @throws what the kernel said; nothing is left then */
  create(dirs: readonly string[]): Promise<void>;
  /** Moves a process with all its threads into it; one that has ended is success. */
  add(dirs: readonly string[], pid: number): Promise<void>;
  /** Of a group whose processes have ended. Removing what is not there is success. */
  remove(dirs: readonly string[]): Promise<void>;
}

export interface HostCgroupsDeps {
  /** Root whose sandboxes these are: each has a directory of its own. */
  readonly rootDir: string;
  readonly log: Log;
  /** What the kernel says; a parameter so that tests can have any host. */
  readonly hierarchies?: (() => Promise<readonly Hierarchy[]>) | undefined;
}

const TOP = "belljar";

/** For those who want none. */
export const noCgroups: HostCgroups = {
  plan: async () => [],
  create: async () => {},
  add: async () => {},
  remove: async () => {},
};

export async function readHierarchies(): Promise<readonly Hierarchy[]> {
  const [mountinfo, own] = await Promise.all([
    readFile("/proc/self/mountinfo", "utf8"),
    readFile("/proc/self/cgroup", "utf8"),
  ]);
  const found: Hierarchy[] = [];
  for (const hierarchy of findHierarchies(mountinfo, own)) {
    const isAllowed = await access(hierarchy.dir, constants.W_OK).then(
      () => true,
      () => false,
    );
    found.push({ ...hierarchy, isWritable: hierarchy.isWritable && isAllowed });
  }
  return found;
}

export function openHostCgroups(deps: HostCgroupsDeps): HostCgroups {
  const root = createHash("sha256").update(deps.rootDir).digest("hex").slice(0, 8);
  const { log } = deps;
  const hierarchies = remembered(deps.hierarchies ?? readHierarchies);
  /** Groups that are there, as whoever waits for a sandbox has made them. */
  const made = new Set<string>();
  return {
    plan: async (id) => {
      const usable = (await hierarchies().catch(() => [])).filter(({ isWritable }) => isWritable);
      if (usable.length === 0) log.debug("the host has no control group to give to a VM");
      return usable.map(({ dir }) => join(dir, TOP, root, id));
    },
    create: async (dirs) => {
      if (made.has(dirs.join())) return;
      try {
        for (const dir of dirs) await publishStep("cgroup", `mkdir ${nameOf(dir)}`, () => make(dir));
        made.add(dirs.join());
      } catch (error) {
        await removeAll(dirs, log);
        throw error;
      }
    },
    add: async (dirs, pid) => {
      // The kernel takes 10 to 20 ms for each, even where there is nothing to move.
      if (await isIn(dirs, pid)) return;
      try {
        for (const dir of dirs) {
          await publishStep("cgroup", `add ${nameOf(dir)}`, () => set(join(dir, "cgroup.procs"), String(pid)));
        }
      } catch (error) {
        // One that has ended already needs no group; why it has, whoever started it can say better.
        if (!hasErrno(error, "ESRCH")) throw error;
      }
    },
    remove: async (dirs) => {
      made.delete(dirs.join());
      await removeAll(dirs, log);
    },
  };
}

/** What is asked for several times for each sandbox, and hardly ever changes. */
function remembered<T>(read: () => Promise<T>): () => Promise<T> {
  let last: { readonly answer: Promise<T>; readonly untilMs: number } | undefined;
  return () => {
    if (last === undefined || performance.now() > last.untilMs) {
      last = { answer: read(), untilMs: performance.now() + resourceLimits.hierarchiesKeepMs };
    }
    return last.answer;
  };
}

/** For steps: what is the same for every sandbox and host. */
function nameOf(dir: string): string {
  return dirname(dirname(dir)).endsWith(TOP) ? "group" : "directory";
}

/** Whether the process is in all of them: the path of each hierarchy ends with the sandbox's own part. */
async function isIn([dir, ...others]: readonly string[], pid: number): Promise<boolean> {
  if (dir === undefined) return true;
  const part = dir.slice(dir.lastIndexOf(`/${TOP}/`));
  const text = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
  return text.split("\n").filter((line) => line.endsWith(part)).length === others.length + 1;
}

/** Another owner may just remove the directories above, which are empty for a moment. */
async function make(dir: string): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      for (const each of [dirname(dirname(dir)), dirname(dir), dir]) {
        await mkdir(each, { mode: 0o755 }).catch((error: unknown) => {
          if (!hasErrno(error, "EEXIST")) throw error;
        });
        // Version 2 counts in a group only what the one above hands down; some may be refused, as where processes are in it.
        if (each === dir) continue;
        for (const name of CONTROLLERS) await set(join(each, "cgroup.subtree_control"), `+${name}`).catch(() => {});
      }
      break;
    } catch (error) {
      if (!hasErrno(error, "ENOENT") || tries >= resourceLimits.cgroupTries) throw error;
    }
  }
  await set(join(dir, "pids.max"), String(resourceLimits.vmmThreadsMax)).catch(() => {});
}

/** Never makes a file: those of a group are the kernel's. */
async function set(path: string, value: string): Promise<void> {
  await writeFile(path, value, { flag: "r+" });
}

async function removeAll(dirs: readonly string[], log: Log): Promise<void> {
  for (const dir of dirs) {
    await publishStep("cgroup", `rmdir ${nameOf(dir)}`, () => removeGroup(dir)).catch((error: unknown) => {
      log.warn("a control group of the host could not be removed", { dir, cause: messageChain(error).join(": ") });
    });
  }
}

/** A process that has ended is gone from its group a moment later. */
async function removeGroup(dir: string): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      await rmdir(dir);
      break;
    } catch (error) {
      if (hasErrno(error, "ENOENT")) break;
      if (!hasErrno(error, "EBUSY") || tries >= resourceLimits.cgroupTries) throw error;
      await sleep(resourceLimits.cgroupRetryMs);
    }
  }
  // Those above go with the last one below them.
  for (const above of [dirname(dir), dirname(dirname(dir))]) await rmdir(above).catch(() => {});
}
