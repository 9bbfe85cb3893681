/**
 * Where VMMs wait for the forks of a sandbox. They are chosen before it is stopped, so that the networks of many forks are made while it is
 * captured, which leaves CPUs idle.
 */
import { newId } from "../base/index.ts";
import { baseMemory, type ClaimedCanvas, type Snapshot, type SpareKind } from "../checkpoint/index.ts";
import { copiedNetwork } from "../network/index.ts";
import { type CopyRoom, ofSpares, spareKindOf } from "./copy-rooms.ts";
import type { RuntimeDeps } from "./deps.ts";

export class ForkRoom implements AsyncDisposable {
  readonly #deps: RuntimeDeps;
  readonly #count: number;
  #kind: SpareKind | undefined;
  #canvas: ClaimedCanvas | undefined;
  #waiting: CopyRoom | undefined;
  /** Of forks that were not begun. */
  #ids: string[];

  private constructor(deps: RuntimeDeps, count: number, kind: SpareKind | undefined) {
    this.#deps = deps;
    this.#count = count;
    this.#kind = kind;
    this.#canvas = kind === undefined || count === 1 ? undefined : deps.spares?.claim(kind, count);
    this.#waiting = ofSpares(deps, count === 1 ? kind : this.#canvas?.kind);
    this.#ids = Array.from({ length: count }, () => this.#waiting?.idFor() ?? newId());
  }

  static async open(deps: RuntimeDeps, state: Snapshot["state"], count: number): Promise<ForkRoom> {
    const room = new ForkRoom(deps, count, await spareKindOf(deps, { state, memory: baseMemory(state) }, {}));
    const network = copiedNetwork(state.settings.network);
    if (room.#canvas !== undefined && network !== undefined) deps.networks?.openAhead(room.#ids, network);
    return room;
  }

  /** To be laid over with the pages of the source; undefined where nothing has mapped it. */
  get canvasPath(): string | undefined {
    return this.#canvas?.path;
  }

  get waiting(): CopyRoom | undefined {
    return this.#waiting;
  }

  /** Whoever waits for another kind than what was captured is of no use: the source may have been changed before it was stopped. */
  async settle(snapshot: Snapshot): Promise<void> {
    const kind = await spareKindOf(this.#deps, snapshot, {});
    if (kind?.key === this.#kind?.key) return;
    await this[Symbol.asyncDispose]();
    this.#kind = kind;
    this.#canvas = undefined;
    this.#waiting = undefined;
    this.#ids = Array.from({ length: this.#count }, () => newId());
  }

  /** For the next fork, which gives it back by itself when it does not come to be. */
  begin(): string {
    return this.#ids.pop() ?? newId();
  }

  /** There may be more of them. */
  want(): void {
    if (this.#kind === undefined) return;
    if (this.#count === 1) this.#deps.spares?.want(this.#kind);
    else this.#deps.spares?.wantMany(this.#kind);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of this.#ids.splice(0)) await this.#waiting?.giveBack(id);
    this.#canvas?.[Symbol.dispose]();
    this.#canvas = undefined;
  }
}
