/** A sandbox at one instant, in files: what a checkpoint is made of, and what a copy is started from. */
import type { ContainerState } from "../container/index.ts";
import type { SandboxState } from "../sandbox/index.ts";
import type { BlockPages } from "./memory/index.ts";

export interface Snapshot {
  /** When its clock stood still, in milliseconds since the epoch; not known of one that was paused before. */
  readonly stoppedAtMs?: number | undefined;
  /** With the VM, the agent and the disks as they were at that instant. */
  readonly state: SandboxState<ContainerState>;
  /** The file that the VM's memory was mapped from; without one, pages that are not saved are zeros. */
  readonly memory: BaseMemory | undefined;
  readonly pages: readonly BlockPages[];
  readonly pagesPath: string;
  /** Where in that file they begin, in bytes. */
  readonly pagesAt: number;
  /** How that file is packed. */
  readonly compression?: "zstd" | undefined;
  readonly devices: { readonly path: string; readonly at: number };
  readonly disks: readonly FrozenDisk[];
  /** Layers that came with the checkpoint, for a host that has not got them. */
  readonly layers: readonly string[];
  readonly logs: readonly FrozenLog[];
}

export interface BaseMemory {
  readonly path: string;
  /** Digest of the template that it is the memory of, if it is. */
  readonly template?: string | undefined;
}

export interface FrozenDisk {
  readonly serial: string;
  /** The disk's files, the last one first; they never change again. */
  readonly files: readonly string[];
}

/** What a container's first process had written, as far as it was in files. */
export interface FrozenLog {
  readonly containerId: string;
  readonly starts: number;
  readonly files: readonly { readonly path: string; readonly sizeBytes: number }[];
}

/** How long, in milliseconds. */
export interface SnapshotTimes {
  /** The VM's CPUs stood still. */
  readonly pauseMs: number;
  /** Its containers did, from the first that was frozen to the last that was thawed. */
  readonly frozenMs: number;
}
