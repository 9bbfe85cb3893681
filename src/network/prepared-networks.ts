/**
 * Places for VMs that wait for a sandbox: a network with one link down, so that nothing gets through: the bridge's, or where there is none
 * the one to the guest. A VMM stays in the namespace in which it was started, so that it is there before anybody knows what will be asked of
 * it. What is likely to be asked may be in its rules already, which are used if they are those of the network that is made of it.
 */
import { throwIfAborted } from "../base/index.ts";
import type { ExpectedNetwork } from "./config.ts";
import { removeNamespace } from "./namespace.ts";
import { endSlirp, startSlirp } from "./slirp.ts";
import type { OwnNetworkState } from "./state.ts";

export interface PreparedNetwork {
  /** Its ports are not taken: they are the likely ones. */
  readonly state: OwnNetworkState;
  /** Those that its namespace has. */
  readonly rules?: string | undefined;
}

export interface PreparedNetworksDeps {
  /** Decides on a place, tells it before anything is made of it, and makes it. */
  readonly make: (
    expected: ExpectedNetwork,
    namespace: string,
    onDecided: (place: PreparedNetwork) => void,
  ) => Promise<PreparedNetwork>;
  readonly leaveBridge: (place: OwnNetworkState) => Promise<void>;
}

export class PreparedNetworks {
  readonly #deps: PreparedNetworksDeps;
  /** By namespace, until a network is made of them. */
  readonly #places = new Map<string, PreparedNetwork>();

  constructor(deps: PreparedNetworksDeps) {
    this.#deps = deps;
  }

  get places(): readonly OwnNetworkState[] {
    return [...this.#places.values()].map(({ state }) => state);
  }

  /** What a network in this namespace begins with, if it is there. */
  find(mode: OwnNetworkState["mode"], namespace: string): OwnNetworkState | undefined {
    const state = this.#places.get(namespace)?.state;
    return state?.mode === mode ? state : undefined;
  }

  /** It is a network from now on, or removed as one. */
  take(namespace: string): PreparedNetwork | undefined {
    const place = this.#places.get(namespace);
    this.#places.delete(namespace);
    return place;
  }

  /** @param runDir for the files of the program behind a user-mode network; @throws what its making throws, and nothing is left */
  async prepare(
    expected: ExpectedNetwork,
    namespace: string,
    runDir: string,
    signal: AbortSignal,
  ): Promise<OwnNetworkState> {
    const keep = (now: PreparedNetwork): void => void this.#places.set(namespace, now);
    try {
      throwIfAborted(signal);
      const { state } = await this.#deps.make(expected, namespace, keep);
      if (expected.mode === "user")
        await startSlirp(namespace, [], runDir, async (uplink) => keep({ state: { ...state, uplink } }), signal);
      return state;
    } catch (error) {
      await this.remove(namespace);
      throw error;
    }
  }

  /** One that was taken is left. */
  async remove(namespace: string): Promise<void> {
    const state = this.take(namespace)?.state;
    if (state === undefined) return;
    if (state.uplink !== undefined) await endSlirp(state.uplink);
    await removeNamespace(namespace);
    if (state.mode === "bridge") await this.#deps.leaveBridge(state);
  }
}
