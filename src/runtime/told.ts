/** What is told of a sandbox's parts, and what happens to it. Only types. */
import type { LifecycleState, ShownState } from "../base/index.ts";
import type { ContainerStats } from "../container/index.ts";
import type { PublishedPort } from "../network/index.ts";

export interface HibernationInfo {
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  /** A connection to one of them wakes it. */
  readonly ports: readonly PublishedPort[];
}

export interface VmmInfo {
  readonly pid: number;
  readonly acceleration: "kvm" | "tcg";
  /** Digest of the template that the VM was started from; absent when it was booted. */
  readonly template?: string | undefined;
}

export interface SandboxResourcesInfo {
  /** More than there is: the guest has not taken or given what it should. */
  readonly memoryAskedMib: number;
  readonly cpusAsked: number;
  readonly memoryMaxMib: number;
  readonly cpusMax: number;
  readonly sharedMemoryBytes?: number | undefined;
  /** Directories of the VM's control group on the host, one for each hierarchy; none where the host has none to give. */
  readonly cgroups: readonly string[];
}

export interface SandboxStats {
  readonly host: { readonly cpuUs: bigint; readonly residentBytes: bigint; readonly threads: number };
  readonly guest: {
    readonly memoryTotalBytes: bigint;
    readonly memoryAvailableBytes: bigint;
    readonly agentResidentBytes: bigint;
    readonly processes: number;
  };
  readonly containers: Readonly<Record<string, ContainerStats>>;
  /** Of the guest's, dropped or refused by the rules of its network since the VM's start. */
  readonly deniedPackets?: number | undefined;
}

export type SandboxEvent =
  | { readonly kind: "created"; readonly atMs: number; readonly image: string }
  | { readonly kind: "renamed"; readonly atMs: number; readonly oldName: string }
  | { readonly kind: "state"; readonly atMs: number; readonly state: ShownState }
  | { readonly kind: "container"; readonly atMs: number; readonly containerId: string; readonly state: LifecycleState }
  /** The monitor found the VMM or the agent failing, several times in a row; told once. */
  | { readonly kind: "failed"; readonly atMs: number; readonly part: "vmm" | "agent"; readonly message: string }
  /** Packets of the guest were dropped or refused by the rules of its network: how many since its VM's start. */
  | { readonly kind: "denied"; readonly atMs: number; readonly packets: number }
  | { readonly kind: "deleted"; readonly atMs: number };

/** One of all events of a root. Numbers are consecutive, also from one owner to the next: a gap is what was missed. */
export type RuntimeEvent = SandboxEvent & {
  readonly number: number;
  readonly sandboxId: string;
  /** The name that it had then. */
  readonly sandboxName: string;
};
