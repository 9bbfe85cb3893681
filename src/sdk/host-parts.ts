/** Images, guest images and templates of this host, as programs hold them. */
import type { Templates } from "../checkpoint/index.ts";
import type { BuildOptions, GuestImage, GuestImages } from "../guest/index.ts";
import type { ImageStore } from "../images/index.ts";
import type { Capability } from "../resources/index.ts";
import type { CheckpointInfo, CheckpointName } from "../runtime/index.ts";
import type { Paths } from "./paths.ts";

/** What this host has, whoever owns the root. */
export interface HostParts {
  readonly paths: Paths;
  readonly images: ImageStore;
  readonly guestImages: GuestImages;
  readonly templates: HostTemplates;
  readonly archives: CheckpointArchives;
  /** What this host can do, what it cannot, and the remedy for each. */
  doctor(options?: { readonly signal?: AbortSignal | undefined }): Promise<readonly Capability[]>;
  /** Builds the guest image unless it is up to date, and the built-in images that come with it. */
  buildGuestImage(options?: BuildOptions): Promise<GuestImage>;
}

/** Frozen guests that sandboxes start from; they are made when they are first needed. */
export interface HostTemplates extends Pick<Templates, "list" | "remove"> {
  /** Those that were made of sandboxes, with everything that ran in them; removed as the checkpoints that they are. Oldest first. */
  listWarm(): Promise<readonly CheckpointInfo[]>;
}

/** Checkpoints as files, for other hosts. Named as checkpoints are: id, unambiguous prefix of it, or name. */
export interface CheckpointArchives {
  /** Replaces a file that is there, at the end and at once. @throws BelljarError `CHECKPOINT_NOT_FOUND`, `CHECKPOINT_CORRUPT`, `DISK_FULL` */
  export(nameOrId: string, path: string, options?: ExportOptions): Promise<CheckpointName>;
  /** @throws BelljarError `CHECKPOINT_CORRUPT`, `CHECKPOINT_EXISTS`, `DISK_FULL`; nothing is left then */
  import(path: string, options?: ArchiveOptions): Promise<CheckpointName>;
}

export interface ExportOptions extends ArchiveOptions {
  /** With zstd; `import` takes either. */
  readonly compress?: boolean | undefined;
}

export interface ArchiveOptions {
  readonly signal?: AbortSignal | undefined;
}
