/**
 * How large a sandbox's VM should be: a pure function of what was asked of the sandbox and of its containers' limits.
 *
 * A size that nobody gave follows the containers: the usual size, for the guest and for what has no limit, and the sum of the
 * limits on top. A size that somebody gave is kept; only a single container that could not use its limit in it makes it larger.
 * Neither goes beyond the sandbox's maximum: limits may add up to more than there is, as they may on any host.
 */

import type { VmSize } from "../hypervisor/interface.ts";

/** What one container may use of the VM. */
export interface ContainerNeeds {
  readonly memoryBytes?: number | undefined;
  /** CPUs, fractions allowed: quota by period. */
  readonly cpus?: number | undefined;
  /** As the kernel writes it: `0-2,4`. Numbers of the VM's CPUs. */
  readonly cpuset?: string | undefined;
}

/** `fixed`: somebody said how much; `limits`: it follows the containers' limits. */
export type Sizing = "fixed" | "limits";

export interface SizingRules {
  readonly memory: Sizing;
  readonly cpus: Sizing;
}

export interface SizingRequest {
  readonly rules: SizingRules;
  /** What was asked for, or the usual size. */
  readonly base: VmSize;
  readonly max: VmSize;
  /** Of the containers that run or are about to; those that have stopped need nothing. */
  readonly containers: readonly ContainerNeeds[];
}

const MIB = 1024 * 1024;
/** What kernel and agent need beside a container that uses all of its limit; see docs/decisions/memory-growth.md. */
export const GUEST_OWN_MIB = 128;

export function sizeVm({ rules, base, max, containers }: SizingRequest): VmSize {
  const memoryMib = rules.memory === "limits" ? summedMemory(base, containers) : fixedMemory(base, containers);
  const cpus = rules.cpus === "limits" ? summedCpus(base, containers) : fixedCpus(base, containers);
  return {
    memoryMib: Math.min(memoryMib, Math.max(max.memoryMib, base.memoryMib)),
    cpus: Math.min(cpus, Math.max(max.cpus, base.cpus)),
  };
}

function summedMemory(base: VmSize, containers: readonly ContainerNeeds[]): number {
  const bytes = containers.reduce((sum, { memoryBytes = 0 }) => sum + memoryBytes, 0);
  return base.memoryMib + Math.ceil(bytes / MIB);
}

function fixedMemory(base: VmSize, containers: readonly ContainerNeeds[]): number {
  const largest = Math.max(0, ...containers.map(({ memoryBytes = 0 }) => memoryBytes));
  // What fits into the VM as a whole was always allowed: a limit is a bound, and no promise.
  return largest <= base.memoryMib * MIB ? base.memoryMib : GUEST_OWN_MIB + Math.ceil(described(largest) / MIB);
}

/** The kernel needs one byte to describe 64. */
function described(bytes: number): number {
  return bytes + bytes / 64;
}

function summedCpus(base: VmSize, containers: readonly ContainerNeeds[]): number {
  const quota = containers.reduce((sum, { cpus = 0 }) => sum + cpus, 0);
  const sets = cpusOfSets(containers);
  const wanted = base.cpus + (quota > 0 ? quota : sets.size);
  // Ten half CPUs are five, whatever binary fractions add up to.
  return Math.max(Math.ceil(Math.round(wanted * 1000) / 1000), highestOf(sets) + 1);
}

function fixedCpus(base: VmSize, containers: readonly ContainerNeeds[]): number {
  const largest = Math.max(0, ...containers.map(({ cpus = 0 }) => cpus));
  return Math.max(base.cpus, Math.ceil(largest), highestOf(cpusOfSets(containers)) + 1);
}

function cpusOfSets(containers: readonly ContainerNeeds[]): ReadonlySet<number> {
  return new Set(containers.flatMap(({ cpuset = "" }) => parseCpuset(cpuset) ?? []));
}

function highestOf(cpus: ReadonlySet<number>): number {
  return Math.max(-1, ...cpus);
}

/** A number of a CPU beyond this cannot be meant. */
const CPU_NUMBER_MAX = 8_191;

/** The CPUs of a list such as `0-2,4`, none for an empty one; undefined for what is not one. */
export function parseCpuset(text: string): readonly number[] | undefined {
  if (text.trim() === "") return [];
  const cpus: number[] = [];
  for (const part of text.trim().split(",")) {
    const [, first, last] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? [];
    if (first === undefined) return undefined;
    const end = Number(last ?? first);
    if (Number(first) > end || end > CPU_NUMBER_MAX) return undefined;
    for (let cpu = Number(first); cpu <= end; cpu += 1) cpus.push(cpu);
  }
  return cpus;
}
