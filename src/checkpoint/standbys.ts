/**
 * Copies of checkpoints that are loaded and stand still until they are wanted: of the checkpoints that were restored last, so many each.
 *
 * Invariant: one is handed out only as a copy of the checkpoint that it was made of, and to a sandbox with its kind of network.
 */
import type { ConnectAgent } from "../agent-client/index.ts";
import type { Hypervisor } from "../hypervisor/interface.ts";
import type { OwnNetworkState } from "../network/index.ts";
import type { WaitingCopy } from "../sandbox/index.ts";
import { Standby, type StandbySource } from "./standby.ts";
import { type Blueprint, type RoomDeps, WaitingRoom } from "./waiting-room.ts";

export interface StandbysDeps extends RoomDeps {
  readonly hypervisor: Hypervisor;
  readonly connectAgent: ConnectAgent;
  readonly sandboxesDir: string;
  readonly layersDir: string;
}

export interface StandbyKind extends Blueprint {
  readonly checkpointId: string;
  /** Of the checkpoint as it is then. */
  readonly open: (signal: AbortSignal) => Promise<StandbySource>;
}

const MODES: readonly (OwnNetworkState["mode"] | undefined)[] = [undefined, "user", "bridge"];

export class Standbys {
  readonly #room: WaitingRoom<StandbyKind, Standby>;

  constructor(deps: StandbysDeps) {
    this.#room = new WaitingRoom(deps, {
      what: "standby copy",
      make: async (kind, place, signal) => await Standby.make(deps, await kind.open(signal), place, signal),
      ended: (standby) => standby.ended,
      end: (standby) => standby.kill(),
    });
  }

  /** How many wait for a copy, and were not given to one. */
  count(kind: Pick<StandbyKind, "checkpointId" | "network">): number {
    return this.#room.count(keyOf(kind));
  }

  /** For a new copy: that of a standby, or a fresh one. */
  idFor(kind: Pick<StandbyKind, "checkpointId" | "network">): string {
    return this.#room.idFor(keyOf(kind));
  }

  take(id: string): WaitingCopy | undefined {
    this.#room.started(id);
    return this.#room.take(id);
  }

  /** The copy did not come to be. */
  giveBack(id: string): Promise<void> {
    return this.#room.giveBack(id);
  }

  /** There may be more copies of this checkpoint. */
  want(kind: StandbyKind): void {
    this.#room.want(keyOf(kind), kind);
  }

  /** There will be no more of it. */
  async drop(checkpointId: string): Promise<void> {
    for (const mode of MODES) await this.#room.drop(keyOfMode(checkpointId, mode));
  }

  /** Ends those that wait for nobody in particular yet. */
  drain(): Promise<void> {
    return this.#room.drain();
  }

  /** Ends those that wait. */
  stop(): Promise<void> {
    return this.#room.stop();
  }
}

function keyOf({ checkpointId, network }: Pick<StandbyKind, "checkpointId" | "network">): string {
  return keyOfMode(checkpointId, network?.mode);
}

function keyOfMode(checkpointId: string, mode: OwnNetworkState["mode"] | undefined): string {
  return `${checkpointId} ${mode ?? "none"}`;
}
