/** Where a sandbox gets its guest from, if it need not be booted. The folder above has it. */
import type { VmConfig } from "../hypervisor/interface.ts";

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
