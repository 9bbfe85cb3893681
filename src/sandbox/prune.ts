/**
 * Removes what dead owners left behind: their VMs, socket directories and sandbox directories. What a live process owns, and
 * what cannot be read, stays. Any number of processes may prune at once; each step is harmless when another was faster.
 */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  BelljarError,
  hasErrno,
  isAlive,
  isId,
  type Log,
  signalProcess,
  vmmLimits,
  withDeadline,
} from "../base/index.ts";
import { findVmmProcesses, removeLostProbes } from "../hypervisor/index.ts";
import { makerOf, SandboxRecord } from "./record.ts";

export interface PruneDeps {
  readonly sandboxesDir: string;
  readonly runDir: string;
  readonly log: Log;
}

/** One thing that was removed, or found and left. */
export interface Removed {
  readonly kind: "sandbox" | "vm" | "sockets" | "unfinished" | "unreadable" | "probe";
  readonly name: string;
  readonly why: string;
}

export async function pruneSandboxes(deps: PruneDeps): Promise<readonly Removed[]> {
  const removed: Removed[] = [];
  const note = (kind: Removed["kind"], name: string, why: string): void => {
    removed.push({ kind, name, why });
    deps.log.info("pruned", { kind, name, why });
  };
  /** Ids that a live process owns, or that nobody can judge. */
  const kept = new Set<string>();
  const dead: SandboxRecord[] = [];

  // VMs are looked for before the records: a VM that starts meanwhile has its record already, and is found to be owned.
  const vmms = await findVmmProcesses(deps.runDir);
  const sockets = await listDirectory(deps.runDir);
  for (const name of await listDirectory(deps.sandboxesDir)) {
    const dir = join(deps.sandboxesDir, name);
    const maker = makerOf(name);
    if (maker !== undefined) {
      if (await isAlive(maker)) continue;
      await rm(dir, { recursive: true, force: true });
      note("unfinished", name, `its maker, process ${maker.pid}, is gone`);
      continue;
    }
    try {
      const record = await SandboxRecord.open(dir);
      if (await isAlive(record.state.owner)) kept.add(name);
      else dead.push(record);
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      if (error.reason === "STATE_MISSING") {
        // The state is removed last, so nothing else of the sandbox is left.
        await rm(dir, { recursive: true, force: true });
        note("unfinished", name, "its removal had been cut short");
        continue;
      }
      kept.add(name);
      note("unreadable", name, error.message);
    }
  }
  for (const vmm of vmms) {
    if (kept.has(vmm.id)) continue;
    if (await endProcess(vmm.identity)) note("vm", vmm.id, `process ${vmm.identity.pid} had no owner`);
  }
  for (const name of sockets) {
    if (kept.has(name) || !isId(name)) continue;
    await rm(join(deps.runDir, name), { recursive: true, force: true });
    if (!dead.some((record) => record.state.id === name)) note("sockets", name, "they belonged to no sandbox");
  }
  for (const path of await removeLostProbes(deps.log)) note("probe", path, "its prober is gone");
  for (const record of dead) {
    const { id, owner, vm } = record.state;
    if (vm !== undefined) await endProcess(vm.vmm);
    await record.remove();
    note("sandbox", id, `its owner, process ${owner.pid}, is gone`);
  }
  return removed;
}

/** Kills and waits until the kernel has removed the process; false when it was gone already. */
async function endProcess(identity: Parameters<typeof isAlive>[0]): Promise<boolean> {
  if (!(await signalProcess(identity, "SIGKILL"))) return false;
  await withDeadline({ timeoutMs: vmmLimits.killTimeoutMs, what: `process ${identity.pid}` }, async (signal) => {
    while (!signal.aborted && (await isAlive(identity))) await new Promise((resolve) => setTimeout(resolve, 5));
  });
  return true;
}

async function listDirectory(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}
