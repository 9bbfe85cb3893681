/** What a VM that was saved is made of again, beside its configuration. */
import type { MemoryFile, StartOptions, WaitingVmm } from "../hypervisor/interface.ts";
import type { ReturningState } from "./returning.ts";

export interface LoadSource {
  readonly devices: { readonly path: string; readonly at: number };
  /** The file that its memory was mapped from; without one it starts from zeros. */
  readonly memory?: Pick<MemoryFile, "path" | "template"> | undefined;
  readonly fillMemory: StartOptions["fillMemory"];
  readonly agentInstance: string;
  /** What its agent is told when it is first asked for something. */
  readonly returning: ReturningState;
  /** A VMM that waits for it, if there is one, which is the caller's then. */
  readonly takeWaiting?: (() => WaitingVmm | undefined) | undefined;
  /** When its clock stood still, in milliseconds since the epoch, if that is known. */
  readonly stoppedAtMs?: number | undefined;
}
