/** The sandboxes of a root behind the daemon. */
import { fromRuntimeEvent, fromSandboxInfo, toSandboxSpec } from "../../daemon/index.ts";
import type {
  EventsOptions,
  RuntimeEvent,
  SandboxCreateConfig,
  SandboxCreateOptions,
  Sandboxes,
  SandboxHandle,
  SandboxInfo,
} from "../../runtime/index.ts";
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

  async *events({ after, follow = true, onBegin, signal }: EventsOptions = {}): AsyncGenerator<RuntimeEvent> {
    let last = after;
    let hasBegun = false;
    const answers = this.#link.stream({ what: "events were watched", signal }, ({ sandbox }, options) =>
      sandbox.watchEvents({ noFollow: !follow, ...(last === undefined ? {} : { after: last }) }, options),
    );
    for await (const answer of answers) {
      const event = fromRuntimeEvent(answer);
      // Where it goes on after a lost connection.
      last = answer.number;
      if (event !== undefined) yield event;
      else if (!hasBegun) {
        hasBegun = true;
        onBegin?.(last);
      }
    }
  }

  #handle(info: SandboxInfo, isOwned: boolean): SandboxHandle {
    return new ConnectedSandbox(this.#link, info, isOwned);
  }
}
