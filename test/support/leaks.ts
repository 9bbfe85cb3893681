/**
 * What a test may not leave behind. Two test files run at once, so everything is attributed: processes by the environment that
 * they inherit (an id, the test's directory) or by that directory on their command line, the rest by that directory. `endLeaks`
 * takes away what would go on by itself; a file that is left harms nobody.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, readlink, rm, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { identifyProcess, type ProcessIdentity, runTool, signalProcess } from "../../src/base/index.ts";
import { readHierarchies } from "../../src/resources/index.ts";

/** In /proc/net/tcp. */
const TCP_LISTEN = "0A";
/** What was told to end may take a moment to be gone; what is gone by then was not left behind. */
const GRACE_MS = 2_000;
const INTERVAL_MS = 20;
/** Where virtiofsd writes one file for each socket, named by its path with dots for slashes. */
const PID_FILES_DIR = "/run/virtiofsd";

export interface LeakScope {
  /** In the environment of every process that the test starts, as BELLJAR_TEST_ID. */
  readonly testId: string;
  /** Holds everything that the test makes. */
  readonly dir: string;
  /** Network devices and namespaces that were there before. */
  readonly before: ReadonlySet<string>;
  /** Process of the tests; this one unless told. */
  readonly pid?: string;
}

/** One line per thing that is still there. */
export async function findLeaks(scope: LeakScope): Promise<string[]> {
  const found = await Promise.all([
    leakedProcesses(scope),
    leakedMounts(scope),
    leakedLoops(scope),
    leakedSockets(scope),
    leakedHandles(scope),
    leakedNetwork(scope),
    leakedCgroups(scope),
    leakedPidFiles(scope),
  ]);
  return found.flat();
}

/** Looks until a look finds nothing, and for a moment at most. Answers what the last one found. */
export async function lookAgain(look: () => Promise<string[]>): Promise<string[]> {
  const untilMs = performance.now() + GRACE_MS;
  let leaks = await look();
  while (leaks.length > 0 && performance.now() < untilMs) {
    await sleep(INTERVAL_MS);
    leaks = await look();
  }
  return leaks;
}

/** Ends the processes of a test, and removes what then belongs to nobody outside of its directory. */
export async function endLeaks(scope: Pick<LeakScope, "testId" | "dir" | "pid">): Promise<void> {
  await endProcesses(scope);
  for (const path of await findPidFiles(scope.dir)) await rm(path, { force: true });
  // A process that has ended is in its group until somebody has taken note of it.
  await lookAgain(async () => {
    for (const dir of await findCgroups(scope.dir)) {
      await rmdir(dir).catch(() => {});
      // The root's own, with the last of its sandboxes.
      await rmdir(dirname(dir)).catch(() => {});
    }
    return await findCgroups(scope.dir);
  });
  const keys = await rootKeys(scope.dir);
  for (const name of await list("/run/netns")) {
    if (!keys.some((key) => name.startsWith(`belljar-${key}-`))) continue;
    await runTool("ip", ["netns", "delete", name]).catch(() => {});
  }
}

/** Ends every process of a test but this one; resolves when they are gone. */
export async function endProcesses(scope: Pick<LeakScope, "testId" | "dir" | "pid">): Promise<void> {
  // Once more while there are any: one of them may have started another meanwhile.
  await lookAgain(async () => {
    const found = await findProcesses(scope);
    for (const { identity } of found) await signalProcess(identity, "SIGKILL");
    return found.map(({ commandLine }) => commandLine);
  });
}

export async function networkObjects(): Promise<Set<string>> {
  const [devices, namespaces] = await Promise.all([list("/sys/class/net"), list("/run/netns")]);
  return new Set([
    // The kernel makes two of its own when the first of that kind is made anywhere.
    ...devices.filter((name) => !/^ifb[01]$/.test(name)).map((name) => `network device ${name}`),
    ...namespaces.map((name) => `namespace ${name}`),
  ]);
}

interface FoundProcess {
  readonly identity: ProcessIdentity;
  readonly commandLine: string;
}

async function leakedProcesses(scope: LeakScope): Promise<string[]> {
  const found = await findProcesses(scope);
  return found.map(
    ({ identity, commandLine }) => `process ${identity.pid}: ${commandLine.replaceAll("\0", " ").slice(0, 160)}`,
  );
}

async function findProcesses({ testId, dir, pid }: Pick<LeakScope, "testId" | "dir" | "pid">): Promise<FoundProcess[]> {
  const found: FoundProcess[] = [];
  for (const name of await list("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid || name === pid) continue;
    // Before the rest is read: whoever gets this number later has another identity.
    const identity = await identifyProcess(Number(name)).catch(() => undefined);
    if (identity === undefined) continue;
    const [environment, commandLine, stat] = await Promise.all([
      read(`/proc/${name}/environ`),
      read(`/proc/${name}/cmdline`),
      read(`/proc/${name}/stat`),
    ]);
    const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A zombie has neither environment nor command line; it is its parent's, and shows in the parent's own test.
    if (state === "Z") continue;
    const words = environment.split("\0");
    const isMarked =
      words.includes(`BELLJAR_TEST_ID=${testId}`) || environment.includes(dir) || commandLine.includes(dir);
    if (isMarked || (pid !== undefined && parent === pid)) found.push({ identity, commandLine });
  }
  return found;
}

async function leakedMounts({ dir }: LeakScope): Promise<string[]> {
  const lines = (await read("/proc/self/mountinfo")).split("\n");
  return lines.filter((line) => line.includes(` ${dir}`)).map((line) => `mount ${line.split(" ")[4]}`);
}

async function leakedLoops({ dir }: LeakScope): Promise<string[]> {
  const leaks: string[] = [];
  for (const name of await list("/sys/block")) {
    const backing = (await read(`/sys/block/${name}/loop/backing_file`)).trim();
    if (backing.startsWith(dir)) leaks.push(`loop device ${name}: ${backing}`);
  }
  return leaks;
}

/** Open descriptors of this process on files of the test count too: a handle that nobody closed. */
async function leakedSockets({ dir, pid }: LeakScope): Promise<string[]> {
  const sockets = (await read("/proc/net/unix")).split("\n").filter((line) => line.includes(` ${dir}`));
  const leaks = sockets.map((line) => `socket ${line.slice(line.indexOf(dir))}`);
  const descriptors = `/proc/${pid ?? "self"}/fd`;
  for (const name of await list(descriptors)) {
    const target = await readlink(join(descriptors, name)).catch(() => "");
    if (target.startsWith(dir)) leaks.push(`open file ${target}`);
  }
  return leaks;
}

/**
 * TCP servers and watched files of the process of the tests. They are looked up as descriptors: the lists that Node itself
 * keeps name a handle for a turn of the loop after it was closed.
 */
async function leakedHandles({ pid }: LeakScope): Promise<string[]> {
  if (pid === undefined) return [];
  const leaks: string[] = [];
  const tables = await Promise.all([read(`/proc/${pid}/net/tcp`), read(`/proc/${pid}/net/tcp6`)]);
  const listening = new Map<string, string>();
  for (const line of tables.join("\n").split("\n")) {
    const [, address = "", , state, , , , , , inode = ""] = line.trim().split(/\s+/);
    if (state === TCP_LISTEN) listening.set(`socket:[${inode}]`, address);
  }
  for (const name of await list(`/proc/${pid}/fd`)) {
    const target = await readlink(`/proc/${pid}/fd/${name}`).catch(() => "");
    const address = listening.get(target);
    if (address !== undefined) leaks.push(`TCP server ${address}`);
    if ((await read(`/proc/${pid}/fdinfo/${name}`)).includes("inotify wd:")) leaks.push("watched file");
  }
  return leaks;
}

/** By how their groups and namespaces are called: roots below the test's directory, and the root that is that directory. */
async function rootKeys(dir: string): Promise<string[]> {
  const roots = new Set([dir, ...(await list(dir)).flatMap((name) => [join(dir, name), join(dir, name, "root")])]);
  return [...roots].map((root) => createHash("sha256").update(root).digest("hex").slice(0, 8));
}

async function leakedCgroups({ dir }: LeakScope): Promise<string[]> {
  return (await findCgroups(dir)).map((path) => `cgroup ${path}`);
}

/** Wherever this process has its groups. */
async function findCgroups(dir: string): Promise<string[]> {
  const keys = await rootKeys(dir);
  const found: string[] = [];
  for (const hierarchy of await readHierarchies()) {
    for (const key of keys) {
      const home = join(hierarchy.dir, "belljar", key);
      found.push(...(await list(home)).filter((name) => /^[0-9a-z]{12}$/.test(name)).map((name) => join(home, name)));
    }
  }
  return found;
}

async function leakedPidFiles({ dir }: LeakScope): Promise<string[]> {
  return (await findPidFiles(dir)).map((path) => `file ${path}`);
}

async function findPidFiles(dir: string): Promise<string[]> {
  const names = await list(PID_FILES_DIR);
  return names
    .filter((name) => name.startsWith(`${dir}/`.replaceAll("/", ".")))
    .map((name) => join(PID_FILES_DIR, name));
}

/**
 * Namespaces and bridges that are named after a root or a test are theirs, and so is what is plugged into such a bridge: another file,
 * which runs at once, may just have made one. A device of Belljar's without a bridge is left to the look at the end of the stage.
 */
async function leakedNetwork({ before, dir, testId }: LeakScope): Promise<string[]> {
  const mine = new Set([...(await rootKeys(dir)), testId]);
  const leaks: string[] = [];
  for (const name of await networkObjects()) {
    if (before.has(name)) continue;
    const owner = await ownerOf(name);
    if (owner === undefined || mine.has(owner)) leaks.push(name);
  }
  return leaks;
}

/** The root or test that its name speaks of; empty for that of nobody who can be told, undefined when it speaks of none. */
async function ownerOf(name: string): Promise<string | undefined> {
  const named = /^(?:namespace belljar-|network device bj-)([0-9a-f]{8})\b|^namespace t-([0-9a-f]{16})(?:-|$)/.exec(
    name,
  );
  if (named !== null) return named[1] ?? named[2];
  const [, device] = /^network device (bj[0-9a-z]{12})$/.exec(name) ?? [];
  if (device === undefined) return undefined;
  const bridge = await readlink(`/sys/class/net/${device}/master`).catch(() => "");
  return /bj-([0-9a-f]{8})$/.exec(bridge)?.[1] ?? "";
}

function list(path: string): Promise<string[]> {
  return readdir(path).catch(() => []);
}

function read(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}
