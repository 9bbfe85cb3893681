/**
 * The parts of this host, put together: images, guest images, hypervisor, acceleration probe, and the runtime of a root made of
 * them. Nothing is touched before it is needed.
 */
import { join, resolve } from "node:path";
import { connectAgent } from "../agent-client/index.ts";
import { type Log, systemClock } from "../base/index.ts";
import { Pool, Spares, Standbys, Templates } from "../checkpoint/index.ts";
import { type BuildOptions, type GuestImage, type GuestImages, openGuestImages } from "../guest/index.ts";
import {
  type AccelerationProbe,
  createAccelerationProbe,
  createQemu,
  type Hypervisor,
  readAvailableMib,
} from "../hypervisor/index.ts";
import { type ImageStore, openImageStore, prepareBuiltins } from "../images/index.ts";
import { openNetworks } from "../network/index.ts";
import { type Capability, inspectHost, openHostCgroups } from "../resources/index.ts";
import {
  type CheckpointInfo,
  type CheckpointName,
  type ExportCheckpointOptions,
  exportNamed,
  importNamed,
  listTemplates,
  openRuntime,
  type RuntimeCore,
  readLayerUse,
} from "../runtime/index.ts";
import { ReadyLocks } from "../sandbox/index.ts";
import { acquireLock, systemDisk } from "../store/index.ts";

export interface HostPaths {
  /** All state of one runtime. */
  readonly root: string;
  /** Sockets and pid files of this root; nothing that matters is only here. */
  readonly run: string;
  /** Guest images, shared by all roots of a host. */
  readonly guest: string;
  /** Frozen guests that sandboxes start from. */
  readonly templates: string;
  /** What can be found out again: the acceleration probe's answer. */
  readonly cache: string;
}

/** What is kept at hand for what is made next, of each kind; none unless told. */
export interface KeptWaiting {
  /** VMs that run, for new sandboxes. */
  readonly poolSize?: number | undefined;
  /** VMMs without a guest, for restores and forks. */
  readonly spareCount?: number | undefined;
}

export interface HostDeps extends KeptWaiting {
  readonly paths: HostPaths;
  readonly log: Log;
}

export class Host {
  readonly guestImages: GuestImages;
  readonly templates: Templates;
  readonly #deps: HostDeps;
  readonly #hypervisor: Hypervisor;
  #images: Promise<ImageStore> | undefined;

  constructor(deps: HostDeps) {
    this.#deps = deps;
    this.guestImages = openGuestImages({ dir: deps.paths.guest, log: deps.log });
    this.#hypervisor = createQemu({ log: deps.log });
    this.templates = new Templates({
      hypervisor: this.#hypervisor,
      connectAgent,
      dir: deps.paths.templates,
      runDir: deps.paths.run,
      disk: systemDisk,
      lock: acquireLock,
      clock: systemClock,
      log: deps.log,
    });
  }

  images(): Promise<ImageStore> {
    const { paths, log } = this.#deps;
    this.#images ??= openImageStore({
      dir: join(paths.root, "images"),
      guestDir: paths.guest,
      log,
      layerUse: () => readLayerUse(paths.root),
    });
    return this.#images;
  }

  /** Takes the root and recovers what is in it. @throws BelljarError `ROOT_LOCKED` */
  async openRuntime(): Promise<RuntimeCore> {
    const { paths, log, poolSize = 0, spareCount = 0 } = this.#deps;
    const hypervisor = this.#hypervisor;
    const networks = openNetworks({ rootDir: paths.root });
    const runDir = paths.run;
    const cgroups = openHostCgroups({ rootDir: paths.root, log });
    const sandboxesDir = join(paths.root, "sandboxes");
    const locks = new ReadyLocks(sandboxesDir);
    const room = { networks, cgroups, locks, runDir, clock: systemClock, log, availableMemoryMib: readAvailableMib };
    return await openRuntime({
      hypervisor,
      templates: this.templates,
      pool: poolSize === 0 ? undefined : new Pool({ ...room, size: poolSize, hypervisor, connectAgent }),
      spares:
        spareCount === 0
          ? undefined
          : new Spares({ ...room, size: spareCount, hypervisor, checkpointsDir: join(paths.root, "checkpoints") }),
      standbys:
        spareCount === 0
          ? undefined
          : new Standbys({
              ...room,
              size: spareCount,
              hypervisor,
              connectAgent,
              sandboxesDir,
              layersDir: join(paths.root, "images/layers"),
            }),
      networks,
      cgroups,
      lock: locks.acquire,
      acceleration: this.#probe(),
      guestImages: this.guestImages,
      images: await this.images(),
      connectAgent,
      rootDir: paths.root,
      runDir,
      clock: systemClock,
      log,
    });
  }

  /** Checkpoints never change: nobody has to own the root to read or add one. */
  async exportCheckpoint(nameOrId: string, path: string, options?: ExportCheckpointOptions): Promise<CheckpointName> {
    return await exportNamed(this.#deps.paths.root, nameOrId, resolve(path), options);
  }

  async listWarmTemplates(): Promise<readonly CheckpointInfo[]> {
    return await listTemplates(this.#deps.paths.root);
  }

  async importCheckpoint(path: string, signal?: AbortSignal): Promise<CheckpointName> {
    return await importNamed(this.#deps.paths.root, resolve(path), signal);
  }

  /** Builds the guest image unless it is up to date, and the built-in images that come with it. */
  async buildGuestImage(options: BuildOptions = {}): Promise<GuestImage> {
    const { paths, log } = this.#deps;
    const image = await this.guestImages.build(options);
    await prepareBuiltins({
      guestDir: paths.guest,
      log,
      signal: options.signal,
      ...(options.progress === undefined ? {} : { progress: options.progress }),
    });
    return image;
  }

  /** What this host can do, what it cannot, and the remedy for each. */
  async doctor(signal?: AbortSignal | undefined): Promise<readonly Capability[]> {
    return await inspectHost({
      hypervisor: () => this.#hypervisor.info(),
      acceleration: () => this.#probe().resolve("auto", signal),
      guestImage: () => this.guestImages.current(),
      rootDir: this.#deps.paths.root,
      signal,
    });
  }

  #probe(): AccelerationProbe {
    return createAccelerationProbe({
      hypervisor: this.#hypervisor,
      cacheDir: this.#deps.paths.cache,
      boot: async () => {
        const image = await this.guestImages.current();
        return { kernelPath: image.kernelPath, initrdPath: image.initrdPath, kernelArguments: image.kernelArguments };
      },
      log: this.#deps.log,
    });
  }
}
