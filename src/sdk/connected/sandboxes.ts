/** The sandboxes of a root behind the daemon. */
import { fromContainerInfo, fromSandboxInfo, toContainerRequest, toSandboxSpec } from "../../daemon/index.ts";
import type {
  CallOptions,
  ContainerCreateConfig,
  ContainerHandle,
  ContainerInfo,
  Containers,
  SandboxCreateConfig,
  SandboxCreateOptions,
  Sandboxes,
  SandboxHandle,
  SandboxInfo,
} from "../../runtime/index.ts";
import { ConnectedContainer } from "./container.ts";
import type { DaemonLink } from "./daemon-link.ts";
import { ConnectedSandbox } from "./sandbox.ts";

export class ConnectedSandboxes implements Sandboxes {
  readonly #link: DaemonLink;

  constructor(link: DaemonLink) {
    this.#link = link;
  }

  async create(config: SandboxCreateConfig, options: SandboxCreateOptions = {}): Promise<SandboxHandle> {
    const { signal, start = true } = options;
    const request = { spec: toSandboxSpec(config), createOnly: !start };
    const answer = await this.#link.call(
      { what: "a sandbox was being created", repeatable: false, signal, timeoutMs: 0 },
      ({ sandbox }, call) => sandbox.createSandbox(request, call),
    );
    return this.#handle(fromSandboxInfo(answer.sandbox), true);
  }

  async get(nameOrId: string): Promise<SandboxHandle> {
    const answer = await this.#link.call({ what: "a sandbox was looked for", repeatable: true }, ({ sandbox }, call) =>
      sandbox.getSandbox({ sandbox: nameOrId }, call),
    );
    return this.#handle(fromSandboxInfo(answer.sandbox), false);
  }

  async list(): Promise<readonly SandboxInfo[]> {
    const answer = await this.#link.call({ what: "sandboxes were listed", repeatable: true }, ({ sandbox }, call) =>
      sandbox.listSandboxes({}, call),
    );
    return answer.sandboxes.map((each) => fromSandboxInfo(each));
  }

  #handle(info: SandboxInfo, isOwned: boolean): SandboxHandle {
    return new ConnectedSandbox(this.#link, info, new ConnectedContainers(this.#link, info), isOwned);
  }
}

class ConnectedContainers implements Containers {
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
    return new ConnectedContainer(this.#link, this.#sandbox, fromContainerInfo(answer.container));
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
