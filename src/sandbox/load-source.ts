/** What a VM that was saved is made of again, beside its configuration. */
import type { AgentLink } from "../agent-client/index.ts";
import type { MemoryFile, StartOptions, WaitingVmm } from "../hypervisor/interface.ts";
import type { ReturningState } from "./returning.ts";

/** A VMM that waits for a copy, and may be it already. */
export interface WaitingCopy extends WaitingVmm {
  /**
   * Its guest is loaded, with the disks of the copy, and has run until then, in milliseconds since the epoch. Those disks go with no other
   * VM from then on.
   */
  readonly ranUntilMs?: number | undefined;
  /** To the agent of that guest. */
  readonly link?: AgentLink | undefined;
}

export interface LoadSource {
  readonly devices: { readonly path: string; readonly at: number };
  /** The file that its memory was mapped from; without one it starts from zeros. */
  readonly memory?: Pick<MemoryFile, "path" | "template"> | undefined;
  readonly fillMemory: StartOptions["fillMemory"];
  readonly agentInstance: string;
  /** What its agent is told when it is first asked for something. */
  readonly returning: ReturningState;
  /** A VMM that waits for it, if there is one, which is the caller's then. */
  readonly takeWaiting?: (() => WaitingCopy | undefined) | undefined;
  /** Makes the disks that the saved VM is said to have, in place of what is there of them; none when they are there. */
  readonly makeDisks?: (() => Promise<void>) | undefined;
  /** When its clock stood still, in milliseconds since the epoch, if that is known. */
  readonly stoppedAtMs?: number | undefined;
}
