/** What a thread that moves memory is asked, and what it answers. Both sides are ours. */
import type { ErrorReason } from "../../base/index.ts";
import type { MemoryBlock } from "../../hypervisor/interface.ts";
import type { Place } from "./halves.ts";
import type { PageRuns } from "./page-runs.ts";

interface Request {
  readonly id: number;
}

/** Which pages are the VM's own, and a new file for them. */
export interface LookRequest extends Request {
  readonly kind: "look";
  readonly pid: number;
  readonly blocks: readonly Place[];
  readonly path: string;
}

/** Has everything at hand before a guest stands still for it: memory for so much, or room for it in the file. */
export interface PrepareRequest extends Request {
  readonly kind: "prepare";
  readonly path: string;
  /** Where in the file it will begin, in bytes. */
  readonly at: number;
  readonly bytes: number;
}

export interface SaveRequest extends Request {
  readonly kind: "save";
  readonly pid: number;
  readonly blocks: readonly Place[];
  readonly path: string;
  /** One signed number of 64 bits: how many bytes the first half has; -1 until that is known, -2 when it has failed. */
  readonly order: SharedArrayBuffer;
  readonly comes: "first" | "last";
}

/** What is in memory after a `save` goes into its file. */
export interface WriteRequest extends Request {
  readonly kind: "write";
  readonly path: string;
}

export interface LoadRequest extends Request {
  readonly kind: "load";
  readonly pid: number;
  /** As `runs`, one for each. */
  readonly blocks: readonly Pick<MemoryBlock, "address">[];
  readonly runs: readonly PageRuns[];
  readonly path: string;
  /** Where in the file they begin, in bytes. */
  readonly at: number;
}

export interface LayRequest extends Request {
  readonly kind: "lay";
  readonly runs: PageRuns;
  readonly path: string;
  /** A file of the guest's whole memory, which is there. */
  readonly target: string;
}

export type MemoryRequest = LookRequest | PrepareRequest | SaveRequest | WriteRequest | LoadRequest | LayRequest;

export type MemoryAnswer =
  /** With the pages that were found by a look; after a `save` the guest may run on. */
  | { readonly id: number; readonly kind: "done"; readonly runs: readonly PageRuns[] }
  | { readonly id: number; readonly kind: "refused"; readonly reason: ErrorReason; readonly message: string }
  /** By the system, with its code. */
  | { readonly id: number; readonly kind: "failed"; readonly code: string; readonly message: string };
