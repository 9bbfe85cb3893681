/**
 * What every kind of device says of itself; the manager knows nothing else of them. `check` looks and changes nothing; `prepare` does
 * what the host's side needs before the VM can have the device, and `release` undoes that, as often as it is asked and also for an
 * owner that has died; `plug` is pure.
 */
import type { Field, ProcessIdentity } from "../base/index.ts";
import type { DeviceConfig, DiskConfig } from "../hypervisor/interface.ts";
import type { VfioClaims } from "./vfio/claims.ts";

/** Where a sandbox's devices have their files. */
export interface DevicePlace {
  readonly sandboxId: string;
  /** For sockets; made with the VM and removed with it. */
  readonly runDir: string;
  readonly rootDir: string;
  /** Who has which PCI device of this host. */
  readonly vfioClaims: VfioClaims;
}

export interface Checked<C> {
  /** What is the same device has the same key, by whatever path it is named. */
  readonly key: string;
  /** With every default filled in. */
  readonly config: C;
}

/** How the VM has the device; a device that the VM has no part of is neither. */
export interface Plugged {
  readonly disk?: DiskConfig;
  readonly device?: DeviceConfig;
  /** Kernel modules that the guest needs for it. */
  readonly modules: readonly string[];
  /** The guest's drivers make no nodes for it. */
  readonly noNodes?: boolean;
}

export interface DeviceKind<C> {
  /** Reads a configuration back from a state file. */
  readonly decode: (field: Field) => C;
  /** @throws BelljarError what is wrong with it; nothing has been changed */
  readonly check: (config: C, place: DevicePlace) => Promise<Checked<C>>;
  /** Answers the program that it started, if any. All or nothing. */
  readonly prepare?: (
    config: C,
    id: string,
    place: DevicePlace,
    signal: AbortSignal | undefined,
  ) => Promise<ProcessIdentity | undefined>;
  readonly release?: (config: C, id: string, place: DevicePlace, backEnd: ProcessIdentity | undefined) => Promise<void>;
  readonly plug: (config: C, id: string, place: DevicePlace) => Plugged;
}
