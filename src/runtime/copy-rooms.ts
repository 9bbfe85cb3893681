/** Where something waits for a copy that is about to be made: a VMM without a guest, or, of a checkpoint, the copy itself. */
import { join } from "node:path";
import { newId } from "../base/index.ts";
import {
  type CheckpointStore,
  type Snapshot,
  type SpareKind,
  type StandbyKind,
  spareKind,
} from "../checkpoint/index.ts";
import { type CopiedNetworkConfig, copiedNetwork } from "../network/index.ts";
import type { WaitingCopy } from "../sandbox/index.ts";
import type { CheckpointsDeps } from "./checkpoint-moves.ts";
import type { RuntimeDeps } from "./deps.ts";
import { openGuestImage } from "./guest-image.ts";

/** For copies of one kind. */
export interface CopyRoom {
  /** For a new copy: that of what waits, or a fresh one. */
  idFor(): string;
  take(id: string): WaitingCopy | undefined;
  /** The copy did not come to be. */
  giveBack(id: string): Promise<void>;
  /** There may be more of them. */
  want(): void;
}

/** Which VMMs could wait for such a copy, where any do. */
export async function spareKindOf(
  { spares, guestImages, rootDir }: RuntimeDeps,
  snapshot: Pick<Snapshot, "state" | "memory">,
  wanted: CopiedNetworkConfig,
): Promise<SpareKind | undefined> {
  if (spares === undefined) return undefined;
  const image = await openGuestImage(guestImages, snapshot.state.guestImage);
  const network = copiedNetwork(snapshot.state.settings.network, wanted);
  return await spareKind(snapshot, image, network, join(rootDir, "images/layers"));
}

export function ofSpares({ spares }: RuntimeDeps, kind: SpareKind | undefined): CopyRoom | undefined {
  if (spares === undefined || kind === undefined) return undefined;
  return {
    idFor: () => spares.idFor(kind),
    take: (id) => spares.take(id),
    giveBack: (id) => spares.giveBack(id),
    want: () => spares.want(kind),
  };
}

export interface RestoreWish extends CopiedNetworkConfig {
  /** Of the checkpoint. */
  readonly id: string;
  readonly snapshot: Snapshot;
}

/**
 * Where a VMM could wait, and the guest's agent is not needed to bring a copy back, copies of the checkpoint wait: loaded before they are
 * wanted. Until there is one, a VMM will do.
 */
export async function forRestore(
  { runtime, memory }: Pick<CheckpointsDeps, "memory" | "runtime">,
  store: Pick<CheckpointStore, "open">,
  { id, snapshot, ...wanted }: RestoreWish,
): Promise<CopyRoom | undefined> {
  const spare = await spareKindOf(runtime, snapshot, wanted);
  const { standbys, guestImages } = runtime;
  const { wake, guestImage } = snapshot.state;
  const spares = ofSpares(runtime, spare);
  if (spare === undefined || standbys === undefined || wake === undefined) return spares;
  const { network, memoryMib } = spare;
  const kind: StandbyKind = {
    checkpointId: id,
    network,
    memoryMib,
    open: async (signal) => {
      const [opened, image] = await Promise.all([store.open(id, signal), openGuestImage(guestImages, guestImage)]);
      return { snapshot: opened.snapshot, image, memory };
    },
  };
  return {
    idFor: () => (standbys.count(kind) > 0 ? standbys.idFor(kind) : (spares?.idFor() ?? newId())),
    take: (copy) => standbys.take(copy) ?? spares?.take(copy),
    giveBack: async (copy) => {
      await standbys.giveBack(copy);
      await spares?.giveBack(copy);
    },
    want: () => standbys.want(kind),
  };
}
