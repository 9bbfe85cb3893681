/**
 * VMMs that were started and have no guest: they wait for a copy, which needs no more than the memory, the
 * device state and the disks of its guest then.
 *
 * Invariant: a spare becomes a VM of the configuration that it was started with, whose memory is mapped from the same file.
 */
import { stat } from "node:fs/promises";
import { BelljarError } from "../base/index.ts";
import type { GuestImage } from "../guest/index.ts";
import type { Hypervisor, VmConfig, WaitingVmm } from "../hypervisor/interface.ts";
import { type NetworkSettings, networkPath } from "../network/index.ts";
import { bootOf, savedConfig } from "../sandbox/index.ts";
import type { Snapshot } from "./snapshot.ts";
import { type Blueprint, type RoomDeps, WaitingRoom } from "./waiting-room.ts";

export interface SparesDeps extends RoomDeps {
  readonly hypervisor: Hypervisor;
}

/** Copies for which the same spares will do. */
export interface SpareKind extends Blueprint {
  readonly key: string;
  readonly config: Omit<VmConfig, "id" | "runDir">;
  /** Which file its memory is mapped from, whatever that is called. */
  readonly memoryFileId: string | undefined;
}

export class Spares {
  readonly #room: WaitingRoom<SpareKind, WaitingVmm>;

  constructor(deps: SparesDeps) {
    this.#room = new WaitingRoom(deps, {
      what: "spare VMM",
      make: async (kind, { id, runDir, network }, signal) => {
        const networkNamespace = network === undefined ? undefined : networkPath(network);
        // Before: QEMU would make a file that is gone. After: its name may have become another one's.
        await checkMemoryFile(kind);
        const spare = await deps.hypervisor.startWaiting({ ...kind.config, id, runDir, networkNamespace }, { signal });
        try {
          await checkMemoryFile(kind);
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

  /** There may be more copies of this kind. */
  want(kind: SpareKind): void {
    this.#room.want(kind.key, kind);
  }

  stop(): Promise<void> {
    return this.#room.stop();
  }
}

/** Undefined where no VMM can wait: in a namespace of somebody else's, and for memory or devices that other programs have a hand in. */
export async function spareKind(
  { state: { vm }, memory }: Pick<Snapshot, "state" | "memory">,
  image: GuestImage,
  network: NetworkSettings | undefined,
): Promise<SpareKind | undefined> {
  if (vm === undefined || vm.sharedMemory === true || network?.mode === "netns") return undefined;
  if ((vm.devices ?? []).some(({ kind }) => kind !== "net")) return undefined;
  const { disks: _, devices: __, ...rest } = savedConfig(vm);
  const memoryFileId = memory === undefined ? undefined : await idOf(memory.path);
  const mode = network?.mode;
  return {
    key: JSON.stringify([rest, bootOf(image), mode, memoryFileId]),
    memoryFileId,
    mode,
    memoryMib: vm.memoryMib,
    config: {
      ...rest,
      boot: bootOf(image),
      disks: [],
      ...(memory === undefined ? {} : { memoryFile: { ...memory, use: "private" } }),
    },
  };
}

async function idOf(path: string): Promise<string> {
  const { dev, ino } = await stat(path, { bigint: true });
  return `${dev}:${ino}`;
}

async function checkMemoryFile({ config: { memoryFile }, memoryFileId }: SpareKind): Promise<void> {
  if (memoryFile === undefined || (await idOf(memoryFile.path)) === memoryFileId) return;
  throw new BelljarError(
    "CHECKPOINT_MISMATCH",
    `${memoryFile.path} is another file than the copies' memory is mapped from`,
  );
}
