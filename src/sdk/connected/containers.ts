/** The containers of a sandbox behind the daemon. */
import { fromContainerInfo, fromSandboxInfo, toContainerRequest } from "../../daemon/index.ts";
import type {
  CallOptions,
  ContainerCreateConfig,
  ContainerHandle,
  ContainerInfo,
  Containers,
} from "../../runtime/index.ts";
import { ConnectedContainer } from "./container.ts";
import type { DaemonLink } from "./daemon-link.ts";

export class ConnectedContainers implements Containers {
  readonly #link: DaemonLink;
  readonly #sandbox: string;

  constructor(link: DaemonLink, sandbox: { readonly id: string }) {
    this.#link = link;
    this.#sandbox = sandbox.id;
  }

  async create(config: ContainerCreateConfig, { signal }: CallOptions = {}): Promise<ContainerHandle> {
    const answer = await this.#link.call(
      { what: "a container was being created", repeatable: false, signal, timeoutMs: 0 },
      ({ container }, call) => container.createContainer(toContainerRequest(this.#sandbox, config), call),
    );
    return new ConnectedContainer(this.#link, this.#sandbox, fromContainerInfo(answer.container), true);
  }

  async get(nameOrId: string): Promise<ContainerHandle> {
    const ref = { sandbox: this.#sandbox, container: nameOrId };
    const answer = await this.#link.call({ what: "a container was looked for", repeatable: true }, (clients, call) =>
      clients.container.getContainer({ container: ref }, call),
    );
    return new ConnectedContainer(this.#link, this.#sandbox, fromContainerInfo(answer.container));
  }

  async list(): Promise<readonly ContainerInfo[]> {
    const answer = await this.#link.call({ what: "containers were listed", repeatable: true }, ({ sandbox }, call) =>
      sandbox.getSandbox({ sandbox: this.#sandbox }, call),
    );
    return fromSandboxInfo(answer.sandbox).containers;
  }
}
