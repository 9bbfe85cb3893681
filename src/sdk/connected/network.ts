/** The network of a sandbox behind the daemon. */
import { fromInterfaceInfo, fromRouteSpec, toRouteSpec } from "../../daemon/index.ts";
import type { CallOptions, InterfaceInfo, RouteInfo, SandboxNetwork } from "../../runtime/index.ts";
import type { DaemonLink, MakeCall } from "./daemon-link.ts";

export class ConnectedNetwork implements SandboxNetwork {
  readonly #link: DaemonLink;
  readonly #sandbox: string;

  constructor(link: DaemonLink, sandbox: string) {
    this.#link = link;
    this.#sandbox = sandbox;
  }

  async interfaces({ signal }: CallOptions = {}): Promise<readonly InterfaceInfo[]> {
    const { interfaces } = await this.#call("was being asked for", true, signal, (clients, call) =>
      clients.sandbox.getNetwork({ sandbox: this.#sandbox }, call),
    );
    return interfaces.map(fromInterfaceInfo);
  }

  async routes({ signal }: CallOptions = {}): Promise<readonly RouteInfo[]> {
    const { routes } = await this.#call("was being asked for", true, signal, (clients, call) =>
      clients.sandbox.getNetwork({ sandbox: this.#sandbox }, call),
    );
    return routes.map(fromRouteSpec);
  }

  async addInterface(source: string, { signal }: CallOptions = {}): Promise<void> {
    await this.#call("was given an interface", true, signal, (clients, call) =>
      clients.sandbox.addInterface({ sandbox: this.#sandbox, source }, call),
    );
  }

  async removeInterface(name: string, { signal }: CallOptions = {}): Promise<void> {
    await this.#call("lost an interface", false, signal, (clients, call) =>
      clients.sandbox.removeInterface({ sandbox: this.#sandbox, name }, call),
    );
  }

  async setRoutes(routes: readonly RouteInfo[], { signal }: CallOptions = {}): Promise<void> {
    await this.#call("was given routes", true, signal, (clients, call) =>
      clients.sandbox.setRoutes({ sandbox: this.#sandbox, routes: routes.map(toRouteSpec) }, call),
    );
  }

  async refresh({ signal }: CallOptions = {}): Promise<boolean> {
    const { changed } = await this.#call("was being looked at", true, signal, (clients, call) =>
      clients.sandbox.refreshNetwork({ sandbox: this.#sandbox }, call),
    );
    return changed;
  }

  #call<T>(what: string, repeatable: boolean, signal: AbortSignal | undefined, make: MakeCall<T>): Promise<T> {
    const title = `the network of sandbox ${this.#sandbox}`;
    return this.#link.call({ what: `${title} ${what}`, repeatable, signal, timeoutMs: 0 }, make);
  }
}
