/**
 * What a test may not leave behind. Two test files run at once, so everything is attributed: processes by an environment
 * variable that they inherit or by the test's directory on their command line, the rest by that directory.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { readHierarchies } from "../../src/resources/index.ts";

/** In /proc/net/tcp. */
const TCP_LISTEN = "0A";

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
  ]);
  return found.flat();
}

export async function networkObjects(): Promise<Set<string>> {
  const [devices, namespaces] = await Promise.all([list("/sys/class/net"), list("/run/netns")]);
  return new Set([
    ...devices.map((name) => `network device ${name}`),
    ...namespaces.map((name) => `namespace ${name}`),
  ]);
}

async function leakedProcesses({ testId, dir, pid }: LeakScope): Promise<string[]> {
  const leaks: string[] = [];
  for (const name of await list("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid || name === pid) continue;
    const [environment, commandLine, stat] = await Promise.all([
      read(`/proc/${name}/environ`),
      read(`/proc/${name}/cmdline`),
      read(`/proc/${name}/stat`),
    ]);
    const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A zombie has neither environment nor command line; it is its parent's, and shows in the parent's own test.
    if (state === "Z") continue;
    const marked = environment.split("\0").includes(`BELLJAR_TEST_ID=${testId}`) || commandLine.includes(dir);
    if (marked || (pid !== undefined && parent === pid)) {
      leaks.push(`process ${name}: ${commandLine.replaceAll("\0", " ").slice(0, 160)}`);
    }
  }
  return leaks;
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

/** Wherever this process has its groups. */
async function leakedCgroups({ dir }: LeakScope): Promise<string[]> {
  const keys = await rootKeys(dir);
  const leaks: string[] = [];
  for (const hierarchy of await readHierarchies()) {
    for (const key of keys) {
      const home = join(hierarchy.dir, "belljar", key);
      leaks.push(
        ...(await list(home)).flatMap((name) => (/^[0-9a-z]{12}$/.test(name) ? [`cgroup ${join(home, name)}`] : [])),
      );
    }
  }
  return leaks;
}

/** Namespaces that are named after a root or a test are theirs: another file, which runs at once, may just have made one. */
async function leakedNetwork({ before, dir, testId }: LeakScope): Promise<string[]> {
  const mine = new Set([...(await rootKeys(dir)), testId]);
  return [...(await networkObjects())].filter((name) => {
    const owner = /^namespace (?:belljar-([0-9a-f]{8})-|t-([0-9a-f]{16})$)/.exec(name);
    return !before.has(name) && (owner === null || mine.has(owner[1] ?? owner[2] ?? ""));
  });
}

function list(path: string): Promise<string[]> {
  return readdir(path).catch(() => []);
}

function read(path: string): Promise<string> {
  return readFile(path, "utf8").catch(() => "");
}
