/** The network of one sandbox, as callers look at it and change it. */
import { checkSandboxOperation } from "../base/index.ts";
import { addInterface, readNetwork, refreshNetwork, removeInterface, setRoutes } from "../sandbox/index.ts";
import type { CallOptions, InterfaceInfo, RouteInfo, SandboxNetwork } from "./interface.ts";
import type { ManagedSandbox } from "./managed-sandbox.ts";

export class RuntimeNetwork implements SandboxNetwork {
  readonly #managed: ManagedSandbox;

  constructor(managed: ManagedSandbox) {
    this.#managed = managed;
  }

  async interfaces({ signal }: CallOptions = {}): Promise<readonly InterfaceInfo[]> {
    this.#check();
    return (await readNetwork(this.#managed.sandbox, signal)).interfaces;
  }

  async routes({ signal }: CallOptions = {}): Promise<readonly RouteInfo[]> {
    this.#check();
    return (await readNetwork(this.#managed.sandbox, signal)).routes;
  }

  addInterface(source: string, { signal }: CallOptions = {}): Promise<void> {
    return this.#change(
      "add an interface to",
      async () => {
        await addInterface(this.#managed.sandbox, source, signal);
      },
      signal,
    );
  }

  removeInterface(name: string, { signal }: CallOptions = {}): Promise<void> {
    return this.#change("remove an interface from", () => removeInterface(this.#managed.sandbox, name, signal), signal);
  }

  setRoutes(routes: readonly RouteInfo[], { signal }: CallOptions = {}): Promise<void> {
    return this.#change("set the routes of", () => setRoutes(this.#managed.sandbox, routes, signal), signal);
  }

  refresh({ signal }: CallOptions = {}): Promise<boolean> {
    return this.#change("look at the network of", () => refreshNetwork(this.#managed.sandbox, signal), signal);
  }

  #change<T>(what: string, work: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return this.#managed.exclusive(
      what,
      async () => {
        this.#check();
        return await work();
      },
      signal,
    );
  }

  #check(): void {
    const { state } = this.#managed.sandbox.state;
    checkSandboxOperation("network", state, this.#managed.sandbox.id);
  }
}
