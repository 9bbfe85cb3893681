/**
 * Finds the VMMs that Belljar started on this host, by their command lines, without any record of them: what a process that
 * was killed in the middle of a start leaves behind is known to nobody else.
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, sep } from "node:path";
import { hasErrno, identifyProcess, type ProcessIdentity } from "../../base/index.ts";
import { NAME_PREFIX } from "./arguments.ts";

export interface FoundVmm {
  readonly id: string;
  readonly runDir: string;
  readonly identity: ProcessIdentity;
}

/** VMMs of this user whose run directories are in `runDirParent`. */
export async function findVmmProcesses(runDirParent: string): Promise<FoundVmm[]> {
  const found: FoundVmm[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const vmm = await identifyVmm(Number(name), runDirParent);
    if (vmm !== undefined) found.push(vmm);
  }
  return found;
}

async function identifyVmm(pid: number, runDirParent: string): Promise<FoundVmm | undefined> {
  try {
    // Before the command line and after it: the process that was read must be the one that is named.
    const identity = await identifyProcess(pid);
    if (identity === undefined) return undefined;
    const words = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
    const id = new RegExp(`^${NAME_PREFIX}([^,]+),`).exec(wordAfter(words, "-name") ?? "")?.[1];
    const runDir = dirname(wordAfter(words, "-pidfile") ?? "");
    if (id === undefined || !isIn(runDir, runDirParent)) return undefined;
    // Anybody can write such a command line; only our own processes are ours to end.
    if ((await stat(`/proc/${pid}`)).uid !== process.getuid?.()) return undefined;
    const again = await identifyProcess(pid);
    return again?.startTicks === identity.startTicks ? { id, runDir, identity } : undefined;
  } catch (error) {
    // It ended while we looked, or is none of ours.
    if (["ENOENT", "ESRCH", "EACCES", "EPERM"].some((errno) => hasErrno(error, errno))) return undefined;
    throw error;
  }
}

function wordAfter(words: readonly string[], option: string): string | undefined {
  const at = words.indexOf(option);
  return at === -1 ? undefined : words[at + 1];
}

function isIn(path: string, parent: string): boolean {
  const prefix = parent.endsWith(sep) ? parent : parent + sep;
  return path.startsWith(prefix) && basename(path) === path.slice(prefix.length);
}
