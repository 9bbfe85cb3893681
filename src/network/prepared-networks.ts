/**
 * Places for VMs that wait for a sandbox: a namespace with a link to the guest that is down, and a way out without rules or ports. A
 * VMM stays in the namespace in which it was started, so that it is there before anybody knows what will be asked of it.
 */
import { randomBytes } from "node:crypto";
import { throwIfAborted } from "../base/index.ts";
import { MTU, randomMac, USER_ADDRESS } from "./layout.ts";
import { linesWithin, linkLines, namespaceLines, removeNamespace } from "./namespace.ts";
import { endSlirp, startSlirp } from "./slirp.ts";
import type { OwnNetworkState } from "./state.ts";

export interface PreparedNetworksDeps {
  /** Runs these lines, and what else the mode asks for. */
  readonly make: (place: OwnNetworkState, lines: readonly string[]) => Promise<void>;
  readonly leaveBridge: (place: OwnNetworkState) => Promise<void>;
}

export class PreparedNetworks {
  readonly #deps: PreparedNetworksDeps;
  /** By namespace, until a network is made of them. */
  readonly #places = new Map<string, OwnNetworkState>();

  constructor(deps: PreparedNetworksDeps) {
    this.#deps = deps;
  }

  get namespaces(): readonly string[] {
    return [...this.#places.keys()];
  }

  /** What a network in this namespace begins with. */
  place(mode: OwnNetworkState["mode"], namespace: string): OwnNetworkState {
    const place = this.#places.get(namespace);
    if (place?.mode === mode) return place;
    return { mode, namespace, macAddress: randomMac(randomBytes(5)), address: USER_ADDRESS, mtu: MTU, ports: [] };
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
    const place = this.place(mode, namespace);
    const keep = (now: OwnNetworkState): void => void this.#places.set(namespace, now);
    keep(place);
    try {
      throwIfAborted(signal);
      await this.#deps.make(place, [...namespaceLines(namespace), ...linesWithin(namespace, linkLines)]);
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
