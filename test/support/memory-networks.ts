/** Networks in memory: what is made and removed, in order; a test can make any step fail, or leave something behind. */
import { join } from "node:path";
import {
  type EndpointState,
  type ExpectedNetwork,
  type FoundInterface,
  type FoundNetwork,
  type GivenNetworkState,
  type NetworkSettings,
  type NetworkState,
  type Networks,
  networkPath,
  type OwnNetworkState,
  withFound,
} from "../../src/network/index.ts";

type FailingStep = "plan" | "make" | "remove" | "scan" | "refit";

export class MemoryNetworks implements Networks {
  /** By namespace; there until it is removed. */
  readonly made = new Map<string, NetworkState>();
  readonly planned = new Map<string, NetworkState>();
  /** The next step of this kind fails with it. */
  readonly failures = new Map<FailingStep, unknown>();
  /** Of the guest in every further network that is not a given one. */
  guest = { macAddress: "02:00:00:00:00:01", address: "10.0.2.15" };
  /** What is in every given namespace. */
  found: FoundNetwork = { interfaces: [], routes: [], neighbours: [], owners: [] };

  async plan(id: string, { mode, ports, given, rates, links }: Parameters<Networks["plan"]>[1]): Promise<NetworkState> {
    this.#enter("plan");
    if (mode === "netns") {
      if (given === undefined) throw new Error("no path");
      const lists = { ports: [] as const, endpoints: [], routes: [], neighbours: [], nameServers: ["192.0.2.53"] };
      const empty: GivenNetworkState = { mode, ...given, sandboxId: id, namespaceId: "4:1", rates, ...lists };
      const planned = withFound(empty, this.found);
      this.planned.set(networkName(planned), planned);
      return planned;
    }
    const state: NetworkState = {
      mode,
      namespace: `belljar-00000000-${id}`,
      ...this.guest,
      mtu: 1500,
      nameServer: "192.0.2.53",
      ports: ports.map((port, index) => (port.hostPort === 0 ? { ...port, hostPort: 40_000 + index } : port)),
      ...(links === undefined ? {} : { links }),
    };
    this.prepared.delete(id);
    this.planned.set(networkName(state), state);
    return state;
  }

  /** By id, until it is planned. */
  readonly prepared = new Map<string, OwnNetworkState>();

  async prepare(id: string, { mode }: ExpectedNetwork): Promise<OwnNetworkState> {
    const place = { mode, namespace: `belljar-00000000-${id}`, ...this.guest, mtu: 1500, ports: [] };
    this.prepared.set(id, place);
    return place;
  }

  /** Ids of those that were begun before they were asked for, in order. */
  readonly ahead: string[] = [];

  openAhead(ids: readonly string[]): void {
    this.ahead.push(...ids);
  }

  async plannedAhead(id: string, settings: NetworkSettings): Promise<OwnNetworkState | undefined> {
    if (!this.ahead.includes(id)) return undefined;
    const planned = await this.plan(id, settings);
    return planned.mode === "netns" ? undefined : planned;
  }

  async giveUp(id: string): Promise<void> {
    this.prepared.delete(id);
  }

  adopt(state: NetworkState): void {
    this.planned.set(networkName(state), state);
  }

  async make(state: NetworkState): Promise<void> {
    this.made.set(networkName(state), state);
    this.#enter("make");
  }

  async isAt(): Promise<boolean> {
    return true;
  }

  async remove(state: NetworkState): Promise<void> {
    this.#enter("remove");
    this.made.delete(networkName(state));
    this.planned.delete(networkName(state));
  }

  async scan(): Promise<FoundNetwork> {
    this.#enter("scan");
    return this.found;
  }

  async refit(state: GivenNetworkState): Promise<void> {
    this.#enter("refit");
    this.made.set(networkName(state), state);
  }

  /** The change that a test makes in every namespace at once. */
  onChange: () => void = () => {};

  watch(_state: GivenNetworkState, onChange: () => void): { stop(): Promise<void> } {
    this.onChange = onChange;
    const stop = async (): Promise<void> => {
      this.onChange = () => {};
    };
    return { stop };
  }

  renewals = 0;

  async renew(): Promise<void> {
    this.renewals += 1;
  }

  hostLines(state: NetworkState): readonly string[] {
    const links = state.mode === "netns" ? [] : (state.links ?? []);
    return links
      .filter(({ sandbox }) => [...this.made.keys()].some((name) => name.endsWith(sandbox)))
      .map(({ alias }) => `10.88.0.9\t${alias}`);
  }

  readonly bridgeListeners = new Set<() => void>();

  onBridgeChange(callback: () => void): () => void {
    this.bridgeListeners.add(callback);
    return () => void this.bridgeListeners.delete(callback);
  }

  async removeEndpoint(_state: GivenNetworkState, _endpoint: EndpointState): Promise<void> {}

  async denied(state: NetworkState): Promise<number> {
    return this.made.has(networkName(state)) ? 3 : 0;
  }

  /** What the next looks at every network find. */
  nowPassing = { packets: 0, connections: 0 };

  async traffic(): Promise<{ packets: number; connections: number }> {
    return this.nowPassing;
  }

  async sweep(ids: ReadonlySet<string>): Promise<readonly string[]> {
    const lost = [...this.made.keys()].filter((name) => !ids.has(name.slice(-12)));
    for (const name of lost) this.made.delete(name);
    return lost.map((name) => name.slice(-12));
  }

  #enter(step: FailingStep): void {
    const error = this.failures.get(step);
    this.failures.delete(step);
    if (error !== undefined) throw error;
  }
}

/** Ends with the id of the sandbox. */
export function networkName(state: NetworkState): string {
  return state.mode === "netns" ? join(networkPath(state), state.sandboxId) : state.namespace;
}

/** A veth as a scan finds it. */
export function foundVeth(source: string, address: string): FoundInterface {
  const last = address.replace(/\/.*/, "").split(".").at(-1) ?? "0";
  const macAddress = `0a:00:00:00:00:${Number(last).toString(16).padStart(2, "0")}`;
  return { source, kind: "veth", macAddress, mtu: 1400, addresses: [address], isFree: false };
}
