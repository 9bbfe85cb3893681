/**
 * Networks of sandboxes that are about to be: made, in places that were prepared, before anybody asks for them one by one. What comes of it is
 * told to whoever plans and makes the network.
 */
import { canonicalJson } from "../store/index.ts";
import type { NetworkSettings } from "./config.ts";
import type { OwnNetworkState } from "./state.ts";

interface Ahead {
  readonly settings: NetworkSettings;
  readonly planned: Promise<OwnNetworkState>;
  /** After `planned`. */
  readonly made: Promise<void>;
}

export interface AheadDeps {
  readonly plan: (namespace: string, settings: NetworkSettings) => Promise<OwnNetworkState>;
  readonly make: (state: OwnNetworkState, settings: NetworkSettings) => Promise<void>;
  readonly remove: (state: OwnNetworkState) => Promise<void>;
}

export class AheadNetworks {
  readonly #deps: AheadDeps;
  /** By namespace. */
  readonly #all = new Map<string, Ahead>();

  constructor(deps: AheadDeps) {
    this.#deps = deps;
  }

  get namespaces(): readonly string[] {
    return [...this.#all.keys()];
  }

  begin(namespace: string, settings: NetworkSettings): void {
    const planned = this.#deps.plan(namespace, settings);
    const made = planned.then((state) => this.#deps.make(state, settings));
    made.catch(() => {});
    this.#all.set(namespace, { settings, planned, made });
  }

  /** Undefined where nothing of it was begun with these settings. @throws what `plan` has thrown */
  async planned(namespace: string, settings: NetworkSettings): Promise<OwnNetworkState | undefined> {
    const found = this.#all.get(namespace);
    if (found === undefined) return undefined;
    try {
      if (textOf(found.settings) === textOf(settings)) return await found.planned;
    } catch (error) {
      this.#all.delete(namespace);
      throw error;
    }
    await this.giveUp(namespace);
    return undefined;
  }

  /** True when it is made. It is the sandbox's from now on. @throws what `make` has thrown */
  async made({ namespace }: OwnNetworkState): Promise<boolean> {
    const found = this.#all.get(namespace);
    this.#all.delete(namespace);
    await found?.made;
    return found !== undefined;
  }

  /** Before it is removed as a sandbox's. Never rejects. */
  async forget(namespace: string): Promise<void> {
    const found = this.#all.get(namespace);
    this.#all.delete(namespace);
    await found?.made.catch(() => {});
  }

  /** The sandbox did not come to be. */
  async giveUp(namespace: string): Promise<void> {
    const found = this.#all.get(namespace);
    await this.forget(namespace);
    const state = await found?.planned.catch(() => undefined);
    if (state !== undefined) await this.#deps.remove(state);
  }
}

function textOf(settings: NetworkSettings): string {
  return canonicalJson(settings, "settings");
}
