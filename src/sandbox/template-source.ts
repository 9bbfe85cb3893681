/** Where a sandbox gets its guest from, if it need not be booted. The folder above has it. */
import type { VmConfig, VmState } from "../hypervisor/interface.ts";
import type { NetworkState } from "../network/index.ts";

/** A booted guest, frozen: VMs of its configuration start from it. */
export interface BootTemplate {
  readonly digest: string;
  readonly memoryPath: string;
  readonly devicesPath: string;
}

export interface TemplateWish {
  /** What would be booted. */
  readonly vm: VmConfig;
  /** Digest of the guest image. */
  readonly guestImage: string;
  /** Sandboxes of different domains never share memory. */
  readonly domain: string;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: ((step: string) => void) | undefined;
}

export interface TemplateSource {
  /**
   * The template for this configuration, made now if it is not there.
   * @throws BelljarError what a boot throws; `DISK_FULL` and the like when it cannot be kept
   */
  get(wish: TemplateWish): Promise<BootTemplate>;
}

/** VMs that run already, and wait for a sandbox. */
export interface VmPool {
  /** The VM that waits under this id, if it is a copy of this template; it is the caller's then, who takes it over. */
  take(id: string, digest: string): Promise<VmState | undefined>;
  /** A sandbox was started from a template: there may be more of its kind. `config` is what it was started with. */
  started(id: string, config: VmConfig, template: BootTemplate, network: NetworkState | undefined): void;
}
