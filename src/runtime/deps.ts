/** What a runtime is made of. Tests put twins in; `openRuntime` itself names no part of the system. */
import type { ConnectAgent } from "../agent-client/index.ts";
import type { Clock, Log } from "../base/index.ts";
import type { GuestMemory, Pool, Spares, Standbys, Templates } from "../checkpoint/index.ts";
import type { MakeDisk } from "../container/index.ts";
import type { PciHost } from "../devices/index.ts";
import type { GuestImages } from "../guest/index.ts";
import type { AccelerationProbe, Hypervisor } from "../hypervisor/index.ts";
import type { ImageStore } from "../images/index.ts";
import type { Networks } from "../network/index.ts";
import type { HostCgroups } from "../resources/index.ts";
import type { acquireLock, Disk } from "../store/index.ts";

export interface RuntimeDeps {
  readonly hypervisor: Hypervisor;
  readonly acceleration: AccelerationProbe;
  /** A sandbox that is started again boots the guest image that it had. */
  readonly guestImages: Pick<GuestImages, "current" | "open">;
  readonly images: Pick<ImageStore, "hold">;
  readonly connectAgent: ConnectAgent;
  /** Without them every sandbox boots. */
  readonly templates?: Templates | undefined;
  /** VMs that wait for sandboxes; none unless told. It is ended with the runtime. */
  readonly pool?: Pool | undefined;
  /** VMMs that wait for copies; as the pool. */
  readonly spares?: Spares | undefined;
  /** Copies of checkpoints that wait; as the pool. */
  readonly standbys?: Standbys | undefined;
  /** Moves guests' memory; a thread of this process unless told. */
  readonly memory?: GuestMemory | undefined;
  /** All state; made when it is not there. */
  readonly rootDir: string;
  /** Sockets of this root's sandboxes, and nothing else. */
  readonly runDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** The system's own unless told. */
  readonly disk?: Disk | undefined;
  readonly lock?: typeof acquireLock | undefined;
  /** The host's unless told. */
  readonly cgroups?: HostCgroups | undefined;
  /** This host's unless told. */
  readonly networks?: Networks | undefined;
  readonly makeDisk?: MakeDisk | undefined;
  /** Where storage plug-ins leave the mount-info files of direct-assigned volumes. */
  readonly directVolumesDir?: string | undefined;
  /** This host's PCI devices, and where it is written down who has which; this system's unless told. */
  readonly pci?: { readonly host: PciHost; readonly claimsDir: string } | undefined;
}
