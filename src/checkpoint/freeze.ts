/**
 * Boots a guest whose memory is a file, has it rehearse what its copies will do, waits until it has come to rest, and freezes it: the file is
 * its memory, and beside it lies its device state. The VM is gone then, and the file must never change again.
 */
import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AgentLink, ConnectAgent } from "../agent-client/index.ts";
import { type Clock, checkpointLimits, type Log, newId, runTool } from "../base/index.ts";
import type { Hypervisor, Vm, VmConfig } from "../hypervisor/interface.ts";
import { endError } from "../sandbox/index.ts";
import { rehearse } from "./rehearsal.ts";

export interface FreezeDeps {
  readonly hypervisor: Hypervisor;
  readonly connectAgent: ConnectAgent;
  /** Sockets go below it. */
  readonly runDir: string;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Frozen {
  readonly memoryPath: string;
  readonly devicesPath: string;
}

/** @throws BelljarError what a boot throws; nothing runs then, and what is in `dir` is for the caller to remove */
export async function freezeGuest(deps: FreezeDeps, vm: VmConfig, dir: string, signal: AbortSignal): Promise<Frozen> {
  const frozen = filesOf(dir);
  await using memory = await open(frozen.memoryPath, "wx", 0o600);
  await memory.truncate(vm.memoryMib * 1024 * 1024);
  await withVm(deps, { ...vm, memoryFile: { path: frozen.memoryPath, use: "shared" } }, { signal }, async (booted) => {
    const link = await meet(deps, booted, signal);
    try {
      await rehearse(link, deps.clock.nowMs(), signal);
      // What a boot leaves to do in the background is done once here, and not in every copy.
      await deps.clock.sleep(checkpointLimits.templateRestMs, signal);
      await booted.prepareDevices(frozen.devicesPath);
      await booted.pause();
      await booted.saveDevices(frozen.devicesPath);
    } finally {
      // Not before: a copy finds that its host is gone, and looks for the next one at once; one that had none has long pauses.
      await link.close();
    }
  });
  // Pages of zeros need no room, on disk or in the page cache.
  await runTool("fallocate", ["--dig-holes", frozen.memoryPath], { signal });
  for (const path of [frozen.memoryPath, frozen.devicesPath]) {
    await using file = await open(path, "r+");
    await file.chmod(0o400);
    await file.sync();
  }
  return frozen;
}

/** Starts a copy, to see that it answers. @throws BelljarError when it does not */
export async function checkFrozen(
  deps: FreezeDeps,
  vm: VmConfig,
  { memoryPath, devicesPath }: Frozen,
  signal: AbortSignal,
): Promise<void> {
  const config: VmConfig = { ...vm, memoryFile: { path: memoryPath, use: "private" } };
  await withVm(deps, config, { signal, loadDevicesFrom: devicesPath }, async (copy) => {
    await copy.resume();
    const link = await meet(deps, copy, signal);
    await link.close();
  });
}

export function filesOf(dir: string): Frozen {
  return { memoryPath: join(dir, "memory"), devicesPath: join(dir, "devices") };
}

async function withVm(
  { hypervisor, runDir: runs }: FreezeDeps,
  config: VmConfig,
  options: Parameters<Hypervisor["start"]>[1],
  work: (vm: Vm) => Promise<void>,
): Promise<void> {
  const id = newId();
  const runDir = join(runs, id);
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  try {
    const vm = await hypervisor.start({ ...config, id, runDir }, options);
    try {
      await work(vm);
    } finally {
      await vm.kill();
    }
  } finally {
    await rm(runDir, { recursive: true, force: true });
  }
}

async function meet({ connectAgent, log }: FreezeDeps, vm: Vm, signal: AbortSignal): Promise<AgentLink> {
  const { promise: died, reject } = Promise.withResolvers<never>();
  died.catch(() => {});
  void vm.ended.then((end) => reject(endError("the template", end)));
  const link = connectAgent({
    socketPath: vm.agentSocketPath,
    timeoutMs: checkpointLimits.templateBootTimeoutMs,
    signal,
    log,
  });
  return await Promise.race([link, died]);
}
