/**
 * The size of a sandbox as a whole, changed from outside. A running VM grows and shrinks at once; one that does not run has the new
 * size from its next start on. What somebody has asked for is kept from then on, whatever the containers' limits add up to.
 */
import { BelljarError, checkSandboxOperation, sandboxLimits } from "../base/index.ts";
import { type HostSandbox, wantedSize } from "../container/index.ts";
import type { VmSize } from "../hypervisor/interface.ts";
import { checkCpus, checkMemoryMib, type SandboxSettings } from "../sandbox/index.ts";
import type { SandboxResources } from "./interface.ts";

/** In the sandbox's turn. All or nothing. */
export async function updateResources(
  sandbox: HostSandbox,
  change: SandboxResources,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { state } = sandbox.state;
  checkSandboxOperation("resize", state, sandbox.id);
  const settings = changed(sandbox.state.settings, change);
  if (state === "stopped" || !sandbox.hasMachine) {
    await sandbox.update((now) => ({ ...now, settings }));
    return;
  }
  checkRunning(sandbox, settings, change);
  const wanted = wantedSize(sandbox, settings);
  checkContainers(wanted, change);
  const sinceMs = sandbox.clock.nowMs();
  await sandbox.update((now) => ({ ...now, pending: { operation: "resize", sinceMs } }));
  try {
    if (change.memoryMib !== undefined || change.cpus !== undefined) {
      await sandbox.resize(wanted, { signal });
    }
    const { sharedMemoryBytes } = change;
    if (sharedMemoryBytes !== undefined) await sandbox.machine.shareMemory(sharedMemoryBytes);
    await sandbox.update((now) => ({ ...now, settings, pending: undefined }));
  } catch (error) {
    await sandbox.update((now) => ({ ...now, pending: undefined }), { force: true });
    throw error;
  }
}

function changed(settings: SandboxSettings, change: SandboxResources): SandboxSettings {
  const { memoryMib, cpus, sharedMemoryBytes } = change;
  if (memoryMib !== undefined) checkMemoryMib(memoryMib);
  if (cpus !== undefined) checkCpus(cpus);
  if (sharedMemoryBytes !== undefined && !isShareable(sharedMemoryBytes)) {
    throw new BelljarError("INVALID_ARGUMENT", `shared memory of ${sharedMemoryBytes} bytes is out of range`, {
      facts: { min: 1, max: sandboxLimits.sharedMemoryMaxBytes },
    });
  }
  const { memory = "fixed", cpus: cpuRule = "fixed" } = settings.sizing ?? {};
  const atLeast = (max: number | undefined, value: number | undefined): number | undefined =>
    max === undefined || value === undefined ? max : Math.max(max, value);
  return {
    ...settings,
    memoryMib: memoryMib ?? settings.memoryMib,
    cpus: cpus ?? settings.cpus,
    memoryMaxMib: atLeast(settings.memoryMaxMib, memoryMib),
    cpusMax: atLeast(settings.cpusMax, cpus),
    sizing: { memory: memoryMib === undefined ? memory : "fixed", cpus: cpus === undefined ? cpuRule : "fixed" },
    sharedMemoryBytes: sharedMemoryBytes ?? settings.sharedMemoryBytes,
  };
}

function isShareable(bytes: number): boolean {
  return Number.isInteger(bytes) && bytes >= 1 && bytes <= sandboxLimits.sharedMemoryMaxBytes;
}

/** @throws BelljarError `INVALID_ARGUMENT` for what a VM that runs cannot have */
function checkRunning(sandbox: HostSandbox, settings: SandboxSettings, change: SandboxResources): void {
  const { vm } = sandbox.state;
  const max = sandbox.maxSize;
  const check = (what: string, value: number | undefined, min: number, most: number): void => {
    if (value === undefined || (value >= min && value <= most)) return;
    throw new BelljarError("INVALID_ARGUMENT", `the running VM cannot have ${value} ${what}`, {
      facts: { min, max: most },
      remedy: `Ask for ${min} to ${most}, or stop the sandbox first: what it starts with has no such bounds.`,
    });
  };
  check("MiB of memory", change.memoryMib, vm?.memoryMib ?? settings.memoryMib, max.memoryMib);
  check("CPUs", change.cpus, vm?.cpus ?? settings.cpus, max.cpus);
}

/** @throws BelljarError `INVALID_ARGUMENT` for less than what a single container was promised */
function checkContainers(wanted: VmSize, { memoryMib = wanted.memoryMib, cpus = wanted.cpus }: SandboxResources): void {
  if (wanted.memoryMib <= memoryMib && wanted.cpus <= cpus) return;
  throw new BelljarError(
    "INVALID_ARGUMENT",
    `the limits of a container in it need ${wanted.memoryMib} MiB of memory and ${wanted.cpus} CPUs`,
    { facts: { ...wanted }, remedy: "Lower the container's limits first, or ask for that much." },
  );
}

/** After the owner died in the middle: the VM has the size that the state says, or as near to it as the guest goes along with. */
export async function settleSize(sandbox: HostSandbox, signal: AbortSignal): Promise<void> {
  const actual = await sandbox.machine.vm.size();
  const wanted = wantedSize(sandbox, sandbox.state.settings);
  if (actual.memoryMib === wanted.memoryMib && actual.cpus === wanted.cpus) return;
  const { vm } = sandbox.state;
  const least = { memoryMib: vm?.memoryMib ?? 0, cpus: vm?.cpus ?? 0 };
  await sandbox.resize(
    { memoryMib: Math.max(least.memoryMib, wanted.memoryMib), cpus: Math.max(least.cpus, wanted.cpus) },
    { shrinkIfPossible: true, signal },
  );
}
