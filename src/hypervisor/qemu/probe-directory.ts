/**
 * The run directory of a KVM probe, and what becomes of it when the prober is killed: its name says whose it is, and the
 * next probe on this host ends the VM and removes the directory. It is not among the sandboxes' directories, where somebody
 * else's clean-up would take a probe's VM for one without an owner.
 */
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BelljarError, hasErrno, identifyProcess, type Log, newId } from "../../base/index.ts";
import { findVmmProcesses } from "./lost-processes.ts";
import { killProcess } from "./vmm-process.ts";

export interface ProbeDir extends AsyncDisposable {
  readonly id: string;
  readonly path: string;
}

const PREFIX = "belljar-";

export async function makeProbeDir(): Promise<ProbeDir> {
  const self = await identifyProcess(process.pid);
  if (self === undefined) throw new BelljarError("INTERNAL", "this process cannot be seen in /proc");
  const id = `probe-${self.pid}-${self.startTicks}-${newId()}`;
  const path = join(tmpdir(), `${PREFIX}${id}`);
  await mkdir(path, { mode: 0o700 });
  return { id, path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Ends and removes probes of this user whose prober is gone; answers their directories. */
export async function removeLostProbes(log: Log): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(tmpdir())) {
    const match = /^belljar-(probe-(\d+)-(\d+)-[0-9a-f]{12})$/.exec(name);
    if (match === null) continue;
    const [, id, pid, startTicks] = match;
    const prober = await identifyProcess(Number(pid));
    if (prober !== undefined && prober.startTicks === Number(startTicks)) continue;
    const path = join(tmpdir(), name);
    if ((await ownerOf(path)) !== process.getuid?.()) continue;
    const vmm = (await findVmmProcesses(tmpdir())).find((found) => found.id === id);
    if (vmm !== undefined) await killProcess(vmm.identity);
    await rm(path, { recursive: true, force: true });
    log.info("removed a KVM probe whose prober had gone", { path });
    removed.push(path);
  }
  return removed;
}

async function ownerOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).uid;
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}
