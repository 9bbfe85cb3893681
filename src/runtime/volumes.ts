/**
 * Volumes of a root, and who has which disk. Who uses a volume, the sandboxes' states say; between the moment at which somebody
 * takes a disk and the one at which their state says so, it is held here.
 *
 * A disk may be in one VM at a time, or in several that only read it: its file system belongs to one kernel.
 */
import { join } from "node:path";
import { BelljarError } from "../base/index.ts";
import { type MountDisk, type MountHost, makeDisk, sharedDisks } from "../container/index.ts";
import { systemDisk } from "../store/index.ts";
import { DIRECT_VOLUMES_DIR, type StoredVolume, VolumeStore } from "../volumes/index.ts";
import type { RuntimeDeps } from "./deps.ts";
import type { CallOptions, VolumeCreateConfig, VolumeInfo, Volumes, VolumeUser } from "./interface.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";

interface Hold {
  readonly sandboxId: string;
  readonly disks: readonly MountDisk[];
}

export interface RuntimeVolumesDeps {
  readonly runtime: RuntimeDeps;
  readonly sandboxes: () => Iterable<ManagedSandbox>;
  /** Ids of sandboxes whose states cannot be read: they may use anything. */
  readonly unreadable: () => Iterable<string>;
}

export class RuntimeVolumes implements Volumes, MountHost {
  readonly directVolumesDir: string;
  readonly #deps: RuntimeVolumesDeps;
  readonly #store: VolumeStore;
  readonly #holds = new Set<Hold>();

  constructor(deps: RuntimeVolumesDeps) {
    const { runtime } = deps;
    this.#deps = deps;
    this.directVolumesDir = runtime.directVolumesDir ?? DIRECT_VOLUMES_DIR;
    this.#store = new VolumeStore({
      dir: join(runtime.rootDir, "volumes"),
      disk: runtime.disk ?? systemDisk,
      log: runtime.log,
      nowMs: () => runtime.clock.nowMs(),
      makeDisk: (path, sizeBytes, signal) => (runtime.makeDisk ?? makeDisk)(path, sizeBytes, { empty: false, signal }),
    });
  }

  /** What a former owner was making or removing. */
  sweep(): Promise<string[]> {
    return this.#store.sweep();
  }

  async create(config: VolumeCreateConfig = {}, { signal }: CallOptions = {}): Promise<VolumeInfo> {
    return this.#info(await this.#store.create(config, signal));
  }

  async get(name: string): Promise<VolumeInfo> {
    return this.#info(await this.#store.get(name));
  }

  async list(): Promise<readonly VolumeInfo[]> {
    return (await this.#store.list()).map((volume) => this.#info(volume));
  }

  async remove(name: string): Promise<void> {
    await this.#store.remove(name, () => this.#checkUnused(name));
  }

  async prune(options: { readonly all?: boolean | undefined } = {}): Promise<{
    readonly removed: readonly string[];
    readonly freedBytes: number;
  }> {
    const removed: string[] = [];
    let freedBytes = 0;
    for (const { name, named, usedBytes } of await this.#store.list()) {
      if (named && options.all !== true) continue;
      try {
        await this.remove(name);
      } catch (error) {
        // Somebody uses it, or was faster.
        const { reason } = BelljarError.from(error);
        if (reason === "VOLUME_IN_USE" || reason === "VOLUME_NOT_FOUND") continue;
        throw error;
      }
      removed.push(name);
      freedBytes += usedBytes;
    }
    return { removed, freedBytes };
  }

  async volume(name: string, sizeBytes: number | undefined, signal: AbortSignal | undefined): Promise<StoredVolume> {
    return await this.#store.create({ name, sizeBytes }, signal);
  }

  hold(sandboxId: string, disks: readonly MountDisk[]): Disposable {
    for (const disk of disks) this.#checkFree(sandboxId, disk);
    const hold = { sandboxId, disks };
    this.#holds.add(hold);
    return { [Symbol.dispose]: () => void this.#holds.delete(hold) };
  }

  #checkFree(sandboxId: string, wanted: MountDisk): void {
    for (const other of this.#taken()) {
      const disk = other.disks.find(({ path }) => path === wanted.path);
      if (disk === undefined || (disk.readOnly && wanted.readOnly)) continue;
      if (other.sandboxId !== sandboxId) throw inUse(wanted.what, other.sandboxId, disk.readOnly ? " to read it" : "");
      if (disk.readOnly === wanted.readOnly) continue;
      const how = disk.readOnly ? "read-only" : "to write to it";
      throw new BelljarError("VOLUME_IN_USE", `the ${wanted.what} is in this sandbox already, ${how}`, {
        facts: { what: wanted.what, sandbox: sandboxId },
        remedy: "Mount it in the same way in all containers of a sandbox.",
      });
    }
  }

  /** All disks that are in a VM, or are about to be. */
  *#taken(): Generator<Hold> {
    yield* this.#holds;
    for (const { state } of this.#deps.sandboxes()) {
      if (state.vm === undefined) continue;
      const disks = state.containers.filter(({ inGuest }) => inGuest).flatMap(sharedDisks);
      if (disks.length > 0) yield { sandboxId: state.id, disks };
    }
  }

  #checkUnused(name: string): void {
    const [user] = this.#users(name);
    if (user !== undefined) throw inUse(`volume ${name}`, user.sandboxId, "");
    for (const { sandboxId, disks } of this.#holds) {
      if (disks.some(({ what }) => what === `volume ${name}`)) throw inUse(`volume ${name}`, sandboxId, "");
    }
    for (const id of this.#deps.unreadable()) {
      throw new BelljarError("VOLUME_IN_USE", `sandbox ${id} may use volume ${name}: its state cannot be read`, {
        facts: { volume: name, sandbox: id },
      });
    }
  }

  #users(name: string): VolumeUser[] {
    return [...this.#deps.sandboxes()].flatMap(({ state }) =>
      state.containers.flatMap((container) =>
        (container.mounts ?? [])
          .filter(({ type, source }) => type === "volume" && source === name)
          .map(({ destination, readOnly }) => ({
            sandboxId: state.id,
            containerId: container.id,
            destination,
            readOnly,
            mounted: state.vm !== undefined && container.inGuest,
          })),
      ),
    );
  }

  #info({ name, createdAtMs, sizeBytes, usedBytes, path, labels }: StoredVolume): VolumeInfo {
    return { name, createdAtMs, sizeBytes, usedBytes, path, labels, users: this.#users(name) };
  }
}

function inUse(what: string, sandbox: string, how: string): BelljarError {
  return new BelljarError("VOLUME_IN_USE", `the ${what} is in use by sandbox ${sandbox}${how}`, {
    facts: { what, sandbox },
  });
}
