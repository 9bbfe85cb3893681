/** What a container may use of its sandbox: checked against the VM, merged, and as the OCI specification has it. */
import { BelljarError } from "../base/index.ts";
import { parseCpuset } from "../resources/index.ts";
import type { ContainerConfig, ContainerLimits } from "./config.ts";
import type { OciResources } from "./oci-spec.ts";

/** CPU time is dealt out in periods of this length. */
export const CPU_PERIOD_US = 100_000;

const MIB = 1024 * 1024;
/** Below this a container runtime cannot even start a process. */
const MEMORY_MIN_BYTES = 4 * MIB;
/** The kernel refuses quotas shorter than a millisecond. */
const CPUS_MIN = 0.01;
const PIDS_MAX = 4_194_304;
/** Limits that 0 takes away; a weight there always is, and an empty set of CPUs says itself that it is every one. */
const REMOVABLE: ReadonlySet<string> = new Set(["memoryBytes", "cpus", "pids"]);

/** The limits of a configuration: `pidsLimit` is docker's name for one of them. */
export function limitsOf(config: ContainerConfig): ContainerLimits {
  return mergeLimits(config.pidsLimit === undefined ? {} : { pids: config.pidsLimit }, config.limits ?? {});
}

/** Those of `change` that are given, and the others as they were; 0 takes a limit of memory, CPUs or processes away. */
export function mergeLimits(limits: ContainerLimits, change: ContainerLimits): ContainerLimits {
  const given = Object.entries(change).filter(([, value]) => value !== undefined);
  const merged = Object.entries({ ...limits, ...Object.fromEntries(given) });
  return Object.fromEntries(merged.filter(([name, value]) => value !== 0 || !REMOVABLE.has(name)));
}

export function cpuQuotaUs(cpus: number): number {
  return Math.round(cpus * CPU_PERIOD_US);
}

/** @throws BelljarError `INVALID_ARGUMENT`, naming the limit and what it may be in a VM that has this at most */
export function checkLimits(limits: ContainerLimits, vm: { readonly memoryMib: number; readonly cpus: number }): void {
  const check = (what: string, value: number | undefined, min: number, max: number, isWhole: boolean): void => {
    if (value === undefined) return;
    if (value >= min && value <= max && (!isWhole || Number.isInteger(value))) return;
    throw new BelljarError("INVALID_ARGUMENT", `a limit of ${value} ${what} is out of range`, {
      facts: { min, max },
      remedy: `Ask for ${min} to ${max}; the sandbox has at most ${vm.cpus} CPUs and ${vm.memoryMib} MiB of memory.`,
    });
  };
  check("bytes of memory", limits.memoryBytes, MEMORY_MIN_BYTES, vm.memoryMib * MIB, true);
  check("CPUs", limits.cpus, CPUS_MIN, vm.cpus, false);
  check("for the CPU weight", limits.cpuWeight, 1, 10_000, true);
  check("processes", limits.pids, 0, PIDS_MAX, true);
  if (limits.cpuset !== undefined) checkCpuset(limits.cpuset, vm.cpus);
}

/** An empty one is every CPU that there is. */
function checkCpuset(text: string, cpus: number): void {
  const set = text.length <= 256 ? parseCpuset(text) : undefined;
  if (set?.every((cpu) => cpu < cpus) === true) return;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text.slice(0, 40))} is not a set of this VM's CPUs`, {
    remedy: `Give numbers and ranges below ${cpus}, such as 0 or 0-1; nothing at all stands for every CPU.`,
  });
}

export function resourceLimits(limits: ContainerLimits): Omit<OciResources, "devices"> {
  const { memoryBytes, cpus, cpuWeight, cpuset, pids } = limits;
  const cpu = {
    ...(cpus === undefined ? {} : { quota: cpuQuotaUs(cpus), period: CPU_PERIOD_US }),
    ...(cpuset === undefined || cpuset === "" ? {} : { cpus: cpuset }),
  };
  return {
    ...(pids === undefined || pids === 0 ? {} : { pids: { limit: pids } }),
    ...(memoryBytes === undefined ? {} : { memory: { limit: memoryBytes } }),
    ...(Object.keys(cpu).length === 0 ? {} : { cpu }),
    ...(cpuWeight === undefined ? {} : { unified: { "cpu.weight": String(cpuWeight) } }),
  };
}
