/**
 * The runtime inside this process, without a daemon. It composes the parts for everything above: images, guest images,
 * hypervisor, sandboxes. Sandboxes that it creates belong to this process; what a dead process left is removed by `prune`.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { connectAgent } from "../agent-client/index.ts";
import { type Log, newId, silentLog, systemClock, throwIfAborted } from "../base/index.ts";
import { Container } from "../container/index.ts";
import { type BuildOptions, type GuestImage, type GuestImages, openGuestImages } from "../guest/index.ts";
import { type AccelerationProbe, createAccelerationProbe, createQemu, type Hypervisor } from "../hypervisor/index.ts";
import { type ImageStore, openImageStore, prepareBuiltins } from "../images/index.ts";
import { type Capability, inspectHost } from "../resources/index.ts";
import { pruneSandboxes, type Removed, Sandbox, settleSandboxConfig } from "../sandbox/index.ts";
import { type Paths, resolvePaths } from "./paths.ts";
import { type SandboxCreateConfig, SandboxHandle } from "./sandbox-handle.ts";

export interface RuntimeOptions {
  /** Where things are; the defaults of the host when left out. */
  readonly paths?: Paths;
  readonly log?: Log;
  readonly signal?: AbortSignal | undefined;
}

export interface CreateOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told of every long step, in words for people. */
  readonly progress?: (step: string) => void;
}

export class Runtime implements AsyncDisposable {
  readonly paths: Paths;
  readonly images: ImageStore;
  readonly guestImages: GuestImages;
  readonly sandboxes: { create(config: SandboxCreateConfig, options?: CreateOptions): Promise<SandboxHandle> };
  readonly #log: Log;
  readonly #hypervisor: Hypervisor;
  readonly #live = new Set<SandboxHandle>();

  private constructor(paths: Paths, log: Log, images: ImageStore) {
    this.paths = paths;
    this.#log = log;
    this.images = images;
    this.guestImages = openGuestImages({ dir: paths.guest, log });
    this.#hypervisor = createQemu({ log });
    this.sandboxes = { create: (config, options) => this.#create(config, options ?? {}) };
  }

  /** Opens the state under `paths.root`, making what is missing. */
  static async open(options: RuntimeOptions = {}): Promise<Runtime> {
    throwIfAborted(options.signal);
    const paths = options.paths ?? resolvePaths({}, {}, process.getuid?.() ?? 0);
    const log = options.log ?? silentLog;
    await mkdir(paths.root, { recursive: true, mode: 0o700 });
    await mkdir(paths.run, { recursive: true, mode: 0o700 });
    const images = await openImageStore({ dir: join(paths.root, "images"), guestDir: paths.guest, log });
    return new Runtime(paths, log, images);
  }

  /** Removes sandboxes whose owner has died, with their VMs, and files that belong to nobody. */
  async prune(): Promise<readonly Removed[]> {
    return await pruneSandboxes({
      sandboxesDir: this.#sandboxesDir,
      runDir: this.paths.run,
      log: this.#log,
    });
  }

  /** Builds the guest image unless it is up to date, and the built-in images that come with it. */
  async buildGuestImage(options: BuildOptions = {}): Promise<GuestImage> {
    const image = await this.guestImages.build(options);
    await prepareBuiltins({
      guestDir: this.paths.guest,
      log: this.#log,
      signal: options.signal,
      ...(options.progress === undefined ? {} : { progress: options.progress }),
    });
    return image;
  }

  /** What this host can do, what it cannot, and the remedy for each. */
  async doctor(options: { readonly signal?: AbortSignal | undefined } = {}): Promise<readonly Capability[]> {
    return await inspectHost({
      hypervisor: () => this.#hypervisor.info(),
      acceleration: () => this.#probe().resolve("auto", options.signal),
      guestImage: () => this.guestImages.current(),
      signal: options.signal,
    });
  }

  /** Deletes the sandboxes that were created through this runtime and not deleted yet. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#live].map((sandbox) => sandbox.delete()));
  }

  get #sandboxesDir(): string {
    return join(this.paths.root, "sandboxes");
  }

  #probe(): AccelerationProbe {
    return createAccelerationProbe({
      hypervisor: this.#hypervisor,
      cacheDir: this.paths.cache,
      boot: async () => {
        const image = await this.guestImages.current();
        return { kernelPath: image.kernelPath, initrdPath: image.initrdPath, kernelArguments: image.kernelArguments };
      },
      log: this.#log,
    });
  }

  async #create(config: SandboxCreateConfig, options: CreateOptions): Promise<SandboxHandle> {
    const { signal } = options;
    throwIfAborted(signal);
    const id = newId();
    const settings = settleSandboxConfig(config, id);
    await this.prune();
    // The guest image first: the built-in images come with it.
    const guestImage = await this.guestImages.current();
    const image = await this.images.resolve(config.image);
    const sandbox = await Sandbox.create(
      {
        hypervisor: this.#hypervisor,
        acceleration: this.#probe(),
        guestImage,
        connectAgent,
        sandboxesDir: this.#sandboxesDir,
        runDir: this.paths.run,
        clock: systemClock,
        log: this.#log,
      },
      id,
      config.image,
      settings,
      signal,
    );
    try {
      const container = await Container.create({ sandbox, image, log: this.#log }, config.container, {
        storageBytes: config.storageBytes,
        signal,
      });
      const handle = new SandboxHandle(sandbox, container, () => this.#live.delete(handle));
      this.#live.add(handle);
      return handle;
    } catch (error) {
      await sandbox.delete();
      throw error;
    }
  }
}
