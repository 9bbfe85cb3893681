/**
 * Places for VMs that wait for a sandbox: a network without rules and published ports, and with one link down, so that nothing gets through:
 * the bridge's, or where there is none the one to the guest. A VMM stays in the namespace in which it was started, so that it is there before
 * anybody knows what will be asked of it.
 */
import { throwIfAborted } from "../base/index.ts";
import { removeNamespace } from "./namespace.ts";
import { endSlirp, startSlirp } from "./slirp.ts";
import type { OwnNetworkState } from "./state.ts";

export interface PreparedNetworksDeps {
  /** Decides on a place, tells it before anything is made of it, and makes it. */
  readonly make: (
    mode: OwnNetworkState["mode"],
    namespace: string,
    onDecided: (place: OwnNetworkState) => void,
  ) => Promise<OwnNetworkState>;
  readonly leaveBridge: (place: OwnNetworkState) => Promise<void>;
}

export class PreparedNetworks {
  readonly #deps: PreparedNetworksDeps;
  /** By namespace, until a network is made of them. */
  readonly #places = new Map<string, OwnNetworkState>();

  constructor(deps: PreparedNetworksDeps) {
    this.#deps = deps;
  }

  get places(): readonly OwnNetworkState[] {
    return [...this.#places.values()];
  }

  /** What a network in this namespace begins with, if it is there. */
  find(mode: OwnNetworkState["mode"], namespace: string): OwnNetworkState | undefined {
    const place = this.#places.get(namespace);
    return place?.mode === mode ? place : undefined;
  }

  /** It is a network from now on, or removed as one. Answers whether it was there. */
  take(namespace: string): boolean {
    return this.#places.delete(namespace);
  }

  /** @param runDir for the files of the program behind a user-mode network; @throws what its making throws, and nothing is left */
  async prepare(
    mode: OwnNetworkState["mode"],
    namespace: string,
    runDir: string,
    signal: AbortSignal,
  ): Promise<OwnNetworkState> {
    const keep = (now: OwnNetworkState): void => void this.#places.set(namespace, now);
    try {
      throwIfAborted(signal);
      const place = await this.#deps.make(mode, namespace, keep);
      if (mode === "user")
        await startSlirp(namespace, [], runDir, async (uplink) => keep({ ...place, uplink }), signal);
      return place;
    } catch (error) {
      await this.remove(namespace);
      throw error;
    }
  }

  /** One that was taken is left. */
  async remove(namespace: string): Promise<void> {
    const place = this.#places.get(namespace);
    if (place === undefined) return;
    this.#places.delete(namespace);
    if (place.uplink !== undefined) await endSlirp(place.uplink);
    await removeNamespace(namespace);
    if (place.mode === "bridge") await this.#deps.leaveBridge(place);
  }
}
