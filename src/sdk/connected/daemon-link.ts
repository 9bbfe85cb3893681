/**
 * Calls to the daemon: typed, with a deadline, with the daemon's errors as they were thrown there. A call whose connection is
 * lost is made again when that does no harm; otherwise its caller learns that nobody knows whether it was done.
 */
import { type CallOptions, type Client, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { apiLimits, BelljarError, cancelledError, VERSION } from "../../base/index.ts";
import { CLIENT_HEADER, fromConnectError } from "../../daemon/index.ts";
import { API_VERSION, API_VERSION_HEADER, api } from "../../protocol/index.ts";
import { Connection, type ConnectionDeps, closedError, NotSentError } from "./connection.ts";

export interface Clients {
  readonly daemon: Client<typeof api.DaemonService>;
  readonly sandbox: Client<typeof api.SandboxService>;
  readonly container: Client<typeof api.ContainerService>;
  readonly process: Client<typeof api.ProcessService>;
  readonly file: Client<typeof api.FileService>;
  readonly volume: Client<typeof api.VolumeService>;
  readonly checkpoint: Client<typeof api.CheckpointService>;
}

/** Makes one call over whichever connection there is. */
export type MakeCall<T> = (clients: Clients, options: CallOptions) => Promise<T>;

const CLIENT = `belljar/${VERSION} pid=${process.pid} uid=${process.getuid?.() ?? "?"}`;

/** For the daemon's log, and so that one of another version refuses what it would misunderstand. */
const sayWho: Interceptor = (next) => async (request) => {
  request.header.set(CLIENT_HEADER, CLIENT);
  request.header.set(API_VERSION_HEADER, String(API_VERSION));
  return await next(request);
};

export interface LinkCallOptions {
  /** What is done, as it completes "the daemon died while ...". */
  readonly what: string;
  /** Making it twice is the same as making it once. */
  readonly repeatable: boolean;
  readonly signal?: AbortSignal | undefined;
  /** `apiLimits.callTimeoutMs` unless told; 0 for what may take as long as the runtime lets it. */
  readonly timeoutMs?: number | undefined;
}

export interface LinkDeps extends ConnectionDeps {
  /** How long a lost daemon is looked for. */
  readonly reconnectTimeoutMs?: number | undefined;
  /** How long a call is made again and again because each daemon dies before it answers. */
  readonly repeatTimeoutMs?: number | undefined;
}

export class DaemonLink {
  readonly clients: Clients;
  readonly #connection: Connection;
  readonly #mayStart: boolean;
  readonly #reconnectTimeoutMs: number;
  readonly #repeatTimeoutMs: number;
  #wasConnected = false;

  constructor(deps: LinkDeps) {
    this.#connection = new Connection(deps);
    this.#mayStart = deps.launcher !== undefined;
    this.#reconnectTimeoutMs = deps.reconnectTimeoutMs ?? apiLimits.reconnectTimeoutMs;
    this.#repeatTimeoutMs = deps.repeatTimeoutMs ?? apiLimits.repeatTimeoutMs;
    const transport = createConnectTransport({
      baseUrl: this.#connection.authority,
      httpVersion: "2",
      sessionManager: this.#connection,
      interceptors: [sayWho],
      acceptCompression: [],
      readMaxBytes: apiLimits.messageMaxBytes,
      writeMaxBytes: apiLimits.messageMaxBytes,
    });
    this.clients = {
      daemon: createClient(api.DaemonService, transport),
      sandbox: createClient(api.SandboxService, transport),
      container: createClient(api.ContainerService, transport),
      process: createClient(api.ProcessService, transport),
      file: createClient(api.FileService, transport),
      volume: createClient(api.VolumeService, transport),
      checkpoint: createClient(api.CheckpointService, transport),
    };
  }

  /** Waits for a connection, starting a daemon where that is allowed. */
  async reach(signal?: AbortSignal | undefined, mayStart = this.#mayStart): Promise<void> {
    // Without the right to start one, a daemon that was never seen is not waited for.
    const timeoutMs = mayStart || this.#wasConnected ? this.#reconnectTimeoutMs : 0;
    await this.#connection.reach({ signal, timeoutMs, mayStart });
    this.#wasConnected = true;
  }

  async call<T>(options: LinkCallOptions, make: MakeCall<T>): Promise<T> {
    const { signal, timeoutMs = apiLimits.callTimeoutMs } = options;
    // What may take as long as it takes is asked for as long as there are daemons to ask.
    const lastMs = timeoutMs === 0 ? Number.POSITIVE_INFINITY : performance.now() + this.#repeatTimeoutMs;
    let mayStart = this.#mayStart;
    for (let tries = 1; ; tries += 1) {
      await this.reach(signal, mayStart);
      try {
        return await make(this.clients, {
          ...(signal === undefined ? {} : { signal }),
          ...(timeoutMs === 0 ? {} : { timeoutMs }),
        });
      } catch (error) {
        mayStart = this.#judge(error, options);
        if (performance.now() > lastMs) throw lostAgain(options.what, tries, error);
      }
    }
  }

  /**
   * What a failed call means: throws what its caller must see; otherwise it is to be made again, and the answer says whether
   * a daemon may be started for that. One that somebody stopped on purpose is only waited for.
   */
  #judge(thrown: unknown, { what, repeatable, signal }: LinkCallOptions): boolean {
    if (signal?.aborted === true) throw cancelledError(signal);
    if (!(thrown instanceof ConnectError)) throw thrown;
    if (thrown.cause instanceof NotSentError) return this.#mayStart;
    const error = fromConnectError(thrown);
    if (error === undefined) {
      if (this.#connection.isClosed) throw closedError();
      this.#connection.drop();
      if (repeatable) return this.#mayStart;
      throw new BelljarError("DAEMON_LOST", `the daemon died while ${what}; nobody knows whether it was done`, {
        cause: thrown,
      });
    }
    if (error.reason !== "DAEMON_STOPPED") throw error;
    this.#connection.drop();
    if (error.facts["begun"] === false) return this.#mayStart;
    if (repeatable) return false;
    throw error;
  }

  /** Judges the failure of a stream, which can always be opened again, and waits for a connection. */
  async reopen(thrown: unknown, what: string, signal: AbortSignal | undefined): Promise<void> {
    const mayStart = this.#judge(thrown, { what, repeatable: true, signal });
    await this.reach(signal, mayStart);
  }

  /** Messages of a call that is made anew whenever its connection is lost; one that is let go is cancelled. */
  async *stream<T>(
    { what, signal }: Pick<LinkCallOptions, "what" | "signal">,
    make: (clients: Clients, options: CallOptions) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    const stop = new AbortController();
    const either = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
    try {
      await this.reach(signal);
      for (;;) {
        try {
          yield* make(this.clients, { signal: either });
          return;
        } catch (error) {
          await this.reopen(error, what, signal);
        }
      }
    } finally {
      stop.abort();
    }
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }
}

function lostAgain(what: string, tries: number, cause: unknown): BelljarError {
  const message = `each daemon died while ${what}, ${tries} times; there is no answer`;
  return new BelljarError("DAEMON_LOST", message, { facts: { tries }, cause });
}
