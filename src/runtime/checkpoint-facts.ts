/** What is said of checkpoints, and of what they are restored to: facts alone. */

/** A container of a checkpoint, as somebody wants it in the new sandbox. */
export interface RestoredContainer {
  /** The one that it has in the checkpoint. */
  readonly name: string;
  /** From now on; the one that it had unless told. */
  readonly id?: string | undefined;
  /** An OCI runtime specification, or parts of one: compared with what the container was saved with. Nothing of it is applied. */
  readonly spec?: unknown;
}

/**
 * What becomes of differences between specifications. Those that do not matter after a restore, such as paths on the host, environment
 * and names, are never looked at.
 */
export type SpecValidation = "enforce" | "warn" | "ignore";

export interface CheckpointInfo {
  readonly id: string;
  readonly name: string;
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number;
  /** The sandbox that it was taken of. */
  readonly source: { readonly id: string; readonly name: string; readonly generation: number };
  readonly state: "running" | "paused";
  readonly image: string;
  readonly containers: readonly { readonly id: string; readonly name: string; readonly image: string }[];
  readonly memoryMib: number;
  readonly cpus: number;
  readonly acceleration: "kvm" | "tcg";
  /** The VMM that wrote it, such as `QEMU 7.2.22`. */
  readonly hypervisor: string;
  /** The template whose pages it does not hold; absent when it holds all of them. */
  readonly template?: string | undefined;
  /** It was taken by itself, and goes by itself when there are later ones. */
  readonly trail?: boolean | undefined;
  /** Sandboxes can be started from it: their memory is shared until they change it. */
  readonly isTemplate?: boolean | undefined;
  /** How its pages are packed; they are unpacked for each restore. */
  readonly compression?: "zstd" | undefined;
  /** Of all that is in it. */
  readonly digest: string;
  /** Bytes of memory in it, of device state, and of disks as they lie on the host. */
  readonly pagesBytes: number;
  readonly devicesBytes: number;
  readonly disksBytes: number;
  /** How long the source's CPUs stood still, and how long its workload did. */
  readonly pauseMs: number;
  readonly frozenMs: number;
  /** It cannot be read, and this is why; the other fields say only what is known. */
  readonly problem?: string | undefined;
}

export interface RestoreReport {
  readonly fits: boolean;
  readonly findings: readonly RestoreFinding[];
}

export interface RestoreFinding {
  /** Such as `hypervisor`, `acceleration`, `cpu`, `memory`, `template`, `guest image`, `disk`, `layer`, `mount`, `name`. */
  readonly what: string;
  readonly fits: boolean;
  /** For people: what there is, and what is wanted. */
  readonly detail: string;
}
