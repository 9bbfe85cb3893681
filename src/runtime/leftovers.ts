/** What is found in a root's directories and belongs to no sandbox: removed, with a line of log for each. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { hasErrno, isId, type Log, messageChain } from "../base/index.ts";
import { endBackEndsOf } from "../devices/index.ts";
import { type FoundVmm, findVmmProcesses, removeLostProbes } from "../hypervisor/index.ts";
import { type HostCgroups, notedCgroups } from "../resources/index.ts";
import { endProcess, isUnfinished } from "../sandbox/index.ts";

/** One thing that was found, and what became of it. */
export interface Recovered {
  readonly kind: "sandbox" | "vm" | "sockets" | "unfinished" | "unreadable" | "probe" | "device" | "network";
  readonly name: string;
  readonly what: string;
}

export type Note = (kind: Recovered["kind"], name: string, what: string) => void;

/** Ids of sandboxes in the directory; unfinished ones are removed. */
export async function findSandboxIds(sandboxesDir: string, note: Note): Promise<string[]> {
  const ids: string[] = [];
  for (const name of await listDirectory(sandboxesDir)) {
    if (isId(name)) ids.push(name);
    else if (isUnfinished(name)) {
      await rm(join(sandboxesDir, name), { recursive: true, force: true });
      note("unfinished", name, "removed: its creation had been cut short");
    } else {
      note("unreadable", name, "left as it is: this is not the name of a sandbox");
    }
  }
  return ids;
}

/** True when only the remains of a removal are there: the state goes last of what matters. */
export async function isRemoved(dir: string): Promise<boolean> {
  const names = await listDirectory(dir);
  return !names.some((name) => name === "disks" || name === "logs" || name === "sandbox.json");
}

export async function findVmms(runDir: string): Promise<FoundVmm[]> {
  return await findVmmProcesses(runDir);
}

/** @param isOwned whether this VM is the one that the sandbox of its id says it has, or cannot be judged */
export async function removeLeftovers(
  deps: { readonly runDir: string; readonly cgroups: HostCgroups; readonly log: Log },
  vmms: readonly FoundVmm[],
  isOwned: (vmm: FoundVmm) => boolean,
  ids: ReadonlySet<string>,
  note: Note,
): Promise<void> {
  for (const vmm of vmms) {
    if (isOwned(vmm)) continue;
    if (await endProcess(vmm.identity)) note("vm", vmm.id, `ended: process ${vmm.identity.pid} belonged to no sandbox`);
  }
  for (const name of await listDirectory(deps.runDir)) {
    if (!isId(name) || ids.has(name)) continue;
    const dir = join(deps.runDir, name);
    const ended = await endBackEndsOf(dir);
    if (ended > 0) note("vm", name, `ended: ${ended} programs behind its devices belonged to no sandbox`);
    try {
      await deps.cgroups.remove(await notedCgroups(dir));
    } catch (error) {
      deps.log.warn("the control group of a VM that is gone may be left", { cause: messageChain(error).join(": ") });
    }
    await rm(dir, { recursive: true, force: true });
    note("sockets", name, "removed: they belonged to no sandbox");
  }
  for (const path of await removeLostProbes(deps.log)) note("probe", path, "removed: its prober is gone");
}

async function listDirectory(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}
