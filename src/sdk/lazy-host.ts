/** Images and guest images of this host, whose code and files are touched when they are first used: listing sandboxes needs neither. */
import type { Log } from "../base/index.ts";
import { type Host, type KeptWaiting, openHost } from "../daemon/index.ts";
import type { BuildOptions, GuestImage, GuestImages } from "../guest/index.ts";
import type { ImageStore } from "../images/index.ts";
import type { Capability } from "../resources/index.ts";
import type { CheckpointArchives, HostParts, HostTemplates } from "./host-parts.ts";
import type { Paths } from "./paths.ts";

export class LazyHost implements HostParts {
  readonly paths: Paths;
  readonly images: ImageStore;
  readonly guestImages: GuestImages;
  readonly templates: HostTemplates;
  readonly archives: CheckpointArchives;
  readonly #log: Log;
  readonly #kept: KeptWaiting;
  #host: Promise<Host> | undefined;

  constructor(paths: Paths, log: Log, kept: KeptWaiting = {}) {
    this.#kept = kept;
    this.paths = paths;
    this.#log = log;
    const store = async (): Promise<ImageStore> => await (await this.open()).images();
    this.images = {
      import: async (path, options) => (await store()).import(path, options),
      pull: async (reference, options) => (await store()).pull(reference, options),
      list: async () => (await store()).list(),
      inspect: async (name) => (await store()).inspect(name),
      resolve: async (name) => (await store()).resolve(name),
      hold: async (name, signal) => (await store()).hold(name, signal),
      remove: async (name, options) => (await store()).remove(name, options),
      collectGarbage: async (options) => (await store()).collectGarbage(options),
    };
    const guest = async (): Promise<GuestImages> => (await this.open()).guestImages;
    this.guestImages = {
      build: async (options) => (await guest()).build(options),
      list: async () => (await guest()).list(),
      current: async () => (await guest()).current(),
      open: async (digest) => (await guest()).open(digest),
      verify: async (digest) => (await guest()).verify(digest),
    };
    this.archives = {
      export: async (name, path, options) => (await this.open()).exportCheckpoint(name, path, options),
      import: async (path, options) => (await this.open()).importCheckpoint(path, options?.signal),
    };
    const templates = async (): Promise<Host["templates"]> => (await this.open()).templates;
    this.templates = {
      list: async () => (await templates()).list(),
      remove: async (digest) => (await templates()).remove(digest),
      listWarm: async () => (await this.open()).listWarmTemplates(),
    };
  }

  open(): Promise<Host> {
    const { poolSize, spareCount } = this.#kept;
    this.#host ??= openHost({ paths: this.paths, log: this.#log, poolSize, spareCount });
    return this.#host;
  }

  async doctor({ signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<readonly Capability[]> {
    return (await this.open()).doctor(signal);
  }

  async buildGuestImage(options: BuildOptions = {}): Promise<GuestImage> {
    return await (await this.open()).buildGuestImage(options);
  }
}
