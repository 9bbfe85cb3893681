/**
 * VMMs that were started and have no guest: they wait for a copy, which needs no more than the memory, the device state and the disks of its
 * guest then. Those that wait for one copy have mapped what its source's memory was mapped from, and the root and the network device that
 * all of its kind have; those that wait for many at once have mapped a canvas, which what the many have in common is laid over, and have the
 * image that those share too.
 *
 * Invariant: a spare becomes a VM of the configuration that it was started with, whose memory is mapped from the same file, and which may have
 * more disks.
 */
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { BelljarError, messageChain, poolLimits } from "../base/index.ts";
import type { GuestImage } from "../guest/index.ts";
import type { DiskConfig, Hypervisor, MemoryFile, VmConfig, WaitingVmm } from "../hypervisor/interface.ts";
import { expectedNetwork, type NetworkSettings, networkPath } from "../network/index.ts";
import { bootOf, placeNics, ROOT_SERIAL, savedConfig } from "../sandbox/index.ts";
import { Canvas } from "./canvas.ts";
import type { Snapshot } from "./snapshot.ts";
import { type Blueprint, type RoomDeps, WaitingRoom } from "./waiting-room.ts";

const MIB = 1024 * 1024;

export interface SparesDeps extends RoomDeps {
  readonly hypervisor: Hypervisor;
  readonly checkpointsDir: string;
}

/** Copies for which the same spares will do. */
export interface SpareKind extends Blueprint {
  readonly key: string;
  readonly config: Omit<VmConfig, "id" | "runDir">;
  /** Disks that copies of one source have in common, beside those of the configuration. */
  readonly shared: readonly DiskConfig[];
  /** Which file its memory is mapped from, whatever that is called. */
  readonly memoryFileId: string | undefined;
}

/** For many copies at once. When it is let go of, the spares that were too many end, after a while that the copies have the CPUs for. */
export interface ClaimedCanvas extends Disposable {
  /** Of the spares that have mapped it. */
  readonly kind: SpareKind;
  /** To be laid over before the first of them is taken. */
  readonly path: string;
}

interface Wanted extends SpareKind {
  readonly canvas?: Canvas | undefined;
}

export class Spares {
  readonly #room: WaitingRoom<Wanted, WaitingVmm>;
  readonly #deps: SparesDeps;
  /** By the kind of their copies, and what those share; the latest last. */
  readonly #canvases = new Map<string, Canvas>();
  /** What is under way of ending those that were too many. */
  readonly #ending = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  constructor(deps: SparesDeps) {
    this.#deps = deps;
    this.#room = new WaitingRoom(deps, {
      what: "spare VMM",
      make: async (kind, { id, runDir, network, onSpawn }, signal) => {
        const networkNamespace = network === undefined ? undefined : networkPath(network);
        const { devices } = placeNics(kind.config.devices ?? [], network);
        // Before: QEMU would make a file that is gone. After: its name may have become another one's.
        const memoryFile = await memoryOf(kind, signal);
        const config = { ...kind.config, devices, memoryFile, id, runDir, networkNamespace };
        const spare = await deps.hypervisor.startWaiting(config, { signal, onSpawn });
        try {
          await memoryOf(kind, signal);
          return spare;
        } catch (error) {
          await spare.kill();
          throw error;
        }
      },
      ended: (spare) => spare.ended,
      end: (spare) => spare.kill(),
    });
  }

  /** For a new copy: that of a spare, or a fresh one. */
  idFor({ key }: SpareKind): string {
    return this.#room.idFor(key);
  }

  count({ key }: SpareKind): number {
    return this.#room.count(key);
  }

  take(id: string): WaitingVmm | undefined {
    this.#room.started(id);
    return this.#room.take(id);
  }

  /** The copy did not come to be. */
  giveBack(id: string): Promise<void> {
    return this.#room.giveBack(id);
  }

  /** There may be more copies of this kind, one at a time. */
  want(kind: SpareKind): void {
    this.#room.want(kind.key, kind);
  }

  /** There may be more of this kind, many at once. */
  wantMany(kind: SpareKind): void {
    const key = keyOfMany(kind);
    const canvas = this.#canvases.get(key) ?? new Canvas(this.#deps.checkpointsDir);
    this.#canvases.delete(key);
    this.#canvases.set(key, canvas);
    const config = { ...kind.config, disks: [...kind.config.disks, ...kind.shared] };
    this.#room.want(canvas.id, { ...kind, config, key: canvas.id, canvas });
    for (const [oldest, old] of this.#canvases) {
      if (this.#canvases.size <= poolLimits.kindsMax) break;
      this.#canvases.delete(oldest);
      this.#end(old);
    }
  }

  /** Undefined where fewer wait for them than there will be copies. */
  claim(kind: SpareKind, count: number): ClaimedCanvas | undefined {
    const canvas = this.#canvases.get(keyOfMany(kind));
    if (canvas === undefined || this.#room.count(canvas.id) < count) return undefined;
    this.#canvases.delete(keyOfMany(kind));
    this.#room.unwant(canvas.id);
    return { kind: { ...kind, key: canvas.id }, path: canvas.path, [Symbol.dispose]: () => this.#end(canvas) };
  }

  /** Ends those that wait for nobody in particular yet. */
  drain(): Promise<void> {
    return this.#room.drain();
  }

  async stop(): Promise<void> {
    this.#closing.abort(new BelljarError("CANCELLED", "the runtime was closed"));
    await this.#room.stop();
    for (const canvas of this.#canvases.values()) this.#end(canvas);
    this.#canvases.clear();
    await Promise.all(this.#ending);
  }

  /** In the background: nobody waits for it but who stops. */
  #end(canvas: Canvas): void {
    const { clock, log } = this.#deps;
    const ending = (async () => {
      await clock.sleep(poolLimits.quietMs, this.#closing.signal).catch(() => {});
      await this.#room.drop(canvas.id);
      await canvas.remove();
    })()
      .catch((error: unknown) => {
        log.warn("what spare VMMs had mapped is left", { path: canvas.path, cause: messageChain(error).join(": ") });
      })
      .finally(() => void this.#ending.delete(ending));
    this.#ending.add(ending);
  }
}

/**
 * Undefined where no VMM can wait: in a namespace of somebody else's, and for memory or devices that other programs have a hand in.
 * @param layersDir of this root's images: what lies elsewhere is somebody's, who may want to write to it
 */
export async function spareKind(
  { state: { vm }, memory }: Pick<Snapshot, "state" | "memory">,
  image: GuestImage,
  network: NetworkSettings | undefined,
  layersDir: string,
): Promise<SpareKind | undefined> {
  if (vm === undefined || vm.sharedMemory === true || network?.mode === "netns") return undefined;
  const { disks, devices = [], ...rest } = savedConfig(vm);
  if (devices.some(({ kind }) => kind !== "net")) return undefined;
  const places = devices.map(({ id, port }) => [id, port] as const);
  const root = disks.filter(({ serial }) => serial === ROOT_SERIAL).map((disk) => ({ ...disk, path: image.rootPath }));
  const memoryFileId = memory === undefined ? undefined : await idOf(memory.path);
  return {
    key: JSON.stringify([rest, places, root, bootOf(image), network?.mode, memoryFileId]),
    memoryFileId,
    network: network && expectedNetwork(network),
    memoryMib: vm.memoryMib,
    shared: disks.filter(({ path, readOnly }) => readOnly && dirname(path) === layersDir),
    config: {
      ...rest,
      boot: bootOf(image),
      disks: root,
      devices,
      ...(memory === undefined ? {} : { memoryFile: { ...memory, use: "private" } }),
    },
  };
}

/** Many are made of one source, one is of any that is like it. */
function keyOfMany({ key, shared }: SpareKind): string {
  return JSON.stringify([key, shared]);
}

async function idOf(path: string): Promise<string> {
  const { dev, ino } = await stat(path, { bigint: true });
  return `${dev}:${ino}`;
}

/** What a spare maps, which is there. @throws BelljarError `CHECKPOINT_MISMATCH` */
async function memoryOf(kind: Wanted, signal: AbortSignal): Promise<MemoryFile | undefined> {
  const { canvas, config, memoryFileId } = kind;
  const { memoryFile } = config;
  if (canvas?.isGone === true) throw new BelljarError("CANCELLED", "the forks that were waited for are made");
  if (memoryFile !== undefined && (await idOf(memoryFile.path)) !== memoryFileId) {
    throw new BelljarError(
      "CHECKPOINT_MISMATCH",
      `${memoryFile.path} is another file than the copies' memory is mapped from`,
    );
  }
  if (canvas === undefined) return memoryFile;
  await canvas.make(memoryFile?.path, config.memoryMib * MIB, signal);
  return { path: canvas.path, use: "private" };
}
