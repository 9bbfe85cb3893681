/** What the images part gives and takes. */

/** What an image says about running it; every field is there, empty where the image says nothing. */
export interface ImageConfig {
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** `NAME=value`. */
  readonly env: readonly string[];
  /** Absolute; `/` where the image says nothing. */
  readonly workingDir: string;
  /** `name`, `uid`, `name:group`, `uid:gid` and so on; empty for root. */
  readonly user: string;
  /** `80/tcp`. */
  readonly exposedPorts: readonly string[];
  /** Absolute paths. */
  readonly volumes: readonly string[];
  /** A name or number; empty where the image says nothing. */
  readonly stopSignal: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface ImageInfo {
  /** Short form, as `belljar image ls` shows it. */
  readonly name: string;
  /** Of the manifest: docker's "digest" for pulled images. Where the source had no manifest, of the one made at import. */
  readonly digest: string;
  /** Of the configuration: docker's "image id". */
  readonly configDigest: string;
  readonly layerCount: number;
  /** Of the EROFS layers, as they lie on disk; layers that images share count in each. */
  readonly sizeBytes: number;
  /** When the image was made, as it says itself; empty where it does not. */
  readonly createdAt: string;
  /** When it came here, milliseconds since the epoch. */
  readonly addedAtMs: number;
  /** True for images that come with the guest image; they cannot be removed. */
  readonly builtin: boolean;
}

export interface ImageLayer {
  readonly diffId: string;
  /** Read-only EROFS image. */
  readonly path: string;
  readonly sizeBytes: number;
}

export interface ImageDetails extends ImageInfo {
  readonly architecture: string;
  readonly os: string;
  readonly config: ImageConfig;
  readonly layers: readonly ImageLayer[];
  /** Where it came from: a path or a registry's name. */
  readonly source: string;
}

export interface ResolvedImage {
  readonly name: string;
  readonly digest: string;
  readonly config: ImageConfig;
  /** Bottom first. */
  readonly layers: readonly ImageLayer[];
}

export const imageKinds = ["auto", "oci-layout", "oci-archive", "docker-archive", "rootfs"] as const;
export type ImageKind = (typeof imageKinds)[number];

export interface ImportOptions {
  /** What the source says, or else the name of its file, unless told. */
  readonly name?: string;
  readonly kind?: ImageKind;
  /** For `rootfs`, which has no configuration of its own. */
  readonly config?: Partial<ImageConfig>;
  /** What `inspect` shows as the image's origin; the path unless told. */
  readonly source?: string;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: (step: string) => void;
}

export interface PullOptions {
  /** Stored under this name instead of the reference. */
  readonly name?: string;
  /** Speak plain HTTP, or HTTPS without checking the certificate. */
  readonly plainHttp?: boolean;
  /** Credentials in docker's config.json format. */
  readonly authFile?: string;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: (step: string) => void;
}

/** An image that stays as it is until the answer is disposed of. */
export type HeldImage = ResolvedImage & AsyncDisposable;

export interface RemoveImageOptions {
  /** Also the last name of an image that a container uses. */
  readonly force?: boolean | undefined;
}

export interface CollectGarbageOptions {
  /** Remove images that no container uses too, names and all. */
  readonly unusedImages?: boolean | undefined;
}

export interface GarbageReport {
  /** Names of images that no container used; only where these were asked for. */
  readonly imagesRemoved: readonly string[];
  readonly layersRemoved: number;
  readonly bytesFreed: number;
  /** Staging directories of processes that are gone. */
  readonly stagingRemoved: number;
  /** Sandboxes that cannot be read, and may use anything: nothing was removed for their sake. */
  readonly keptFor: readonly string[];
  /** Somebody was adding or taking an image all the time; nothing was removed. */
  readonly isPostponed: boolean;
}

export interface ImageStore {
  /** @throws BelljarError `IMAGE_INVALID`, `IMAGE_HOSTILE`, `IMAGE_UNSUPPORTED`, `INVALID_ARGUMENT`, `DISK_FULL`, `CANCELLED` */
  import(path: string, options?: ImportOptions): Promise<ImageInfo>;
  /** @throws the same, and `IMAGE_PULL_FAILED` */
  pull(reference: string, options?: PullOptions): Promise<ImageInfo>;
  /** By name. */
  list(): Promise<ImageInfo[]>;
  /** Finds by name, digest, configuration digest, or at least 12 of the digits of one. @throws BelljarError `IMAGE_NOT_FOUND` */
  inspect(name: string): Promise<ImageDetails>;
  /** What a container needs of the image. @throws as `inspect` */
  resolve(name: string): Promise<ResolvedImage>;
  /**
   * As `resolve`; and until the answer is disposed of, no garbage is collected: time to write down that the image is used.
   * @throws as `inspect`, and `LOCKED`, `CANCELLED`
   */
  hold(name: string, signal?: AbortSignal): Promise<HeldImage>;
  /** Its layers go with it, but for those that other images name or containers use. @throws BelljarError `IMAGE_NOT_FOUND`, `IMAGE_IN_USE` */
  remove(name: string, options?: RemoveImageOptions): Promise<void>;
  /** Removes layers and documents that no image names and no container uses, and what dead processes left. */
  collectGarbage(options?: CollectGarbageOptions): Promise<GarbageReport>;
}
