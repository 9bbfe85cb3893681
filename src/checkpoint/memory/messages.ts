/** What the thread that moves memory is asked, and what it answers. Both sides are ours. */
import type { MemoryBlock } from "../../hypervisor/interface.ts";
import type { PageRuns } from "./page-runs.ts";

interface Request {
  readonly id: number;
}

interface OutRequest extends Request {
  readonly pid: number;
  readonly blocks: readonly Pick<MemoryBlock, "address" | "sizeBytes">[];
  readonly path: string;
}

/** Has everything at hand before a guest stands still for it: the thread, memory, and a new file with room in the page cache. */
export interface PrepareRequest extends OutRequest {
  readonly kind: "prepare";
}

export interface SaveRequest extends OutRequest {
  readonly kind: "save";
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

export type MemoryRequest = PrepareRequest | SaveRequest | LoadRequest | LayRequest;

export type MemoryAnswer =
  /** The guest may run on: what is not in the file yet is in memory. */
  | {
      readonly id: number;
      readonly kind: "copied";
      readonly runs: readonly PageRuns[];
    }
  | { readonly id: number; readonly kind: "done" }
  | { readonly id: number; readonly kind: "failed"; readonly code: string; readonly message: string };
