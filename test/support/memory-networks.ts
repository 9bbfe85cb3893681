/** Networks in memory: what is made and removed, in order; a test can make any step fail, or leave something behind. */
import type { NetworkState, Networks } from "../../src/network/index.ts";

export class MemoryNetworks implements Networks {
  /** By namespace; there until it is removed. */
  readonly made = new Map<string, NetworkState>();
  readonly planned = new Map<string, NetworkState>();
  /** The next step of this kind fails with it. */
  readonly failures = new Map<"plan" | "make" | "remove", unknown>();

  async plan(id: string, { mode, ports }: Parameters<Networks["plan"]>[1]): Promise<NetworkState> {
    this.#enter("plan");
    const state: NetworkState = {
      mode,
      namespace: `belljar-00000000-${id}`,
      macAddress: "02:00:00:00:00:01",
      address: "10.0.2.15",
      mtu: 1500,
      nameServer: "192.0.2.53",
      ports: ports.map((port, index) => (port.hostPort === 0 ? { ...port, hostPort: 40_000 + index } : port)),
    };
    this.planned.set(state.namespace, state);
    return state;
  }

  adopt(state: NetworkState): void {
    this.planned.set(state.namespace, state);
  }

  async make(state: NetworkState): Promise<void> {
    this.made.set(state.namespace, state);
    this.#enter("make");
  }

  async remove({ namespace }: NetworkState): Promise<void> {
    this.#enter("remove");
    this.made.delete(namespace);
    this.planned.delete(namespace);
  }

  async denied({ namespace }: NetworkState): Promise<number> {
    return this.made.has(namespace) ? 3 : 0;
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

  #enter(step: "plan" | "make" | "remove"): void {
    const error = this.failures.get(step);
    this.failures.delete(step);
    if (error !== undefined) throw error;
  }
}
