/** A restore behind the daemon whose containers are given one by one. */
import { fromSandboxInfo, toRestoredContainer } from "../../daemon/index.ts";
import type { CallOptions, RestoredContainer, RestoreSession, SandboxHandle } from "../../runtime/index.ts";
import type { DaemonLink } from "./daemon-link.ts";
import { ConnectedSandbox } from "./sandbox.ts";

export class ConnectedRestoreSession implements RestoreSession {
  readonly id: string;
  readonly expected: readonly string[];
  readonly #link: DaemonLink;

  constructor(link: DaemonLink, id: string, expected: readonly string[]) {
    this.id = id;
    this.expected = expected;
    this.#link = link;
  }

  async add(container: RestoredContainer): Promise<void> {
    const request = { session: this.id, container: toRestoredContainer(container) };
    await this.#link.call(
      { what: `the container ${container.name} was being given`, repeatable: false, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.addRestoredContainer(request, call),
    );
  }

  async wait({ signal }: CallOptions = {}): Promise<SandboxHandle> {
    const { sandbox } = await this.#link.call(
      { what: "a restore was waited for", repeatable: true, signal, timeoutMs: 0 },
      ({ checkpoint }, call) => checkpoint.waitRestore({ session: this.id }, call),
    );
    return new ConnectedSandbox(this.#link, fromSandboxInfo(sandbox), false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#link.call({ what: "a restore was given up", repeatable: true, timeoutMs: 0 }, (clients, call) =>
      clients.checkpoint.endRestore({ session: this.id }, call),
    );
  }
}
