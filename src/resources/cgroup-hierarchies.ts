/**
 * Where this process's control groups are, under version 2 (one hierarchy), version 1 (one per controller) or both at once: pure
 * functions of what the kernel says.
 */

export interface Hierarchy {
  readonly version: 1 | 2;
  /** Those that Belljar uses, of version 1; of version 2 they are asked for group by group. */
  readonly controllers: readonly string[];
  /** Directory of this process's own group. */
  readonly dir: string;
  readonly isWritable: boolean;
}

/** CPU time, memory and the number of threads: counted, and the last one bounded. */
export const CONTROLLERS: readonly string[] = ["cpu", "cpuacct", "memory", "pids"];

/**
 * @param mountinfo text of /proc/self/mountinfo
 * @param ownGroups text of /proc/self/cgroup
 */
export function findHierarchies(mountinfo: string, ownGroups: string): Hierarchy[] {
  const mounts = mountinfo.split("\n").flatMap(parseMount);
  const own = new Map(ownGroups.split("\n").flatMap(parseOwn));
  const found: Hierarchy[] = [];
  for (const { type, root, point, isWritable, options } of mounts) {
    const version = type === "cgroup2" ? 2 : 1;
    const controllers = version === 2 ? [] : CONTROLLERS.filter((name) => options.includes(name));
    const path = own.get(version === 2 ? "" : (controllers[0] ?? "none"));
    if (path === undefined || !isBelow(path, root)) continue;
    if (found.some((other) => other.version === version && other.controllers.join() === controllers.join())) continue;
    const below = root === "/" ? path : path.slice(root.length);
    found.push({ version, controllers, dir: `${point}${below === "/" ? "" : below}`, isWritable });
  }
  // Beside a full set of version 1 the one hierarchy of version 2 counts nothing.
  const first = found.filter(({ version }) => version === 1);
  return first.some(({ controllers }) => controllers.includes("memory")) ? first : found;
}

interface Mount {
  readonly type: string;
  readonly root: string;
  readonly point: string;
  readonly isWritable: boolean;
  readonly options: readonly string[];
}

/** Fields, a dash, and three more: type, source and options of the file system. */
function parseMount(line: string): Mount[] {
  const [before = "", after = ""] = line.split(" - ");
  const [, , , root, point, flags = ""] = before.split(" ");
  const [type = "", , options = ""] = after.split(" ");
  if (root === undefined || point === undefined || (type !== "cgroup" && type !== "cgroup2")) return [];
  const isWritable = flags.split(",").includes("rw") && options.split(",").includes("rw");
  return [{ type, root: unescaped(root), point: unescaped(point), isWritable, options: options.split(",") }];
}

/** `ID:controllers:path` each; version 2 names no controllers. */
function parseOwn(line: string): (readonly [string, string])[] {
  const [, names, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
  if (names === undefined || path === undefined) return [];
  return names.split(",").map((name) => [name, path] as const);
}

function isBelow(path: string, root: string): boolean {
  return root === "/" || path === root || path.startsWith(`${root}/`);
}

function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}
