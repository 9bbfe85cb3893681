/**
 * One HTTP/2 connection to the daemon, made when it is needed and made again after it was lost. Many calls share it; its
 * window is larger than what all streams together may hold, so that a reader that stops holds up its own stream only.
 */
import http2 from "node:http2";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { apiLimits, BelljarError, hasErrno, throwIfAborted } from "../../base/index.ts";
import type { Launcher } from "./daemon-launcher.ts";

export interface ConnectionDeps {
  readonly socketPath: string;
  /** Starts a daemon where there is none; without it there must be one. */
  readonly launcher?: Launcher | undefined;
}

export interface ReachOptions {
  readonly signal?: AbortSignal | undefined;
  /** Look for so long; 0 tries once. */
  readonly timeoutMs: number;
  readonly mayStart: boolean;
}

/** The request never left: it can be made again whatever it is. */
export class NotSentError extends BelljarError {
  constructor(cause: unknown) {
    super("DAEMON_UNAVAILABLE", "the connection to the daemon was lost", { cause });
  }
}

/** Has the form that Connect's transport wants of whatever manages its sessions. */
export class Connection {
  readonly authority = "http://belljard";
  readonly #deps: ConnectionDeps;
  #session: http2.ClientHttp2Session | undefined;
  /** The present one, and earlier ones on which something is under way still. */
  readonly #open = new Set<http2.ClientHttp2Session>();
  #reaching: Promise<void> | undefined;
  #isClosed = false;

  constructor(deps: ConnectionDeps) {
    this.#deps = deps;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Waits until there is a connection. @throws BelljarError `DAEMON_UNAVAILABLE`, `DAEMON_START_FAILED`, `CANCELLED` */
  async reach(options: ReachOptions): Promise<void> {
    const until = performance.now() + options.timeoutMs;
    while (this.#session === undefined) {
      throwIfAborted(options.signal);
      if (this.#isClosed) throw closedError();
      this.#reaching ??= this.#connect().finally(() => {
        this.#reaching = undefined;
      });
      try {
        await this.#reaching;
      } catch (error) {
        await this.#onFailure(error, options, until);
      }
    }
  }

  async request(
    method: string,
    path: string,
    headers: http2.OutgoingHttpHeaders,
    options: Omit<http2.ClientSessionRequestOptions, "signal">,
  ): Promise<http2.ClientHttp2Stream> {
    const session = this.#session;
    try {
      if (session === undefined) throw new BelljarError("DAEMON_UNAVAILABLE", "there is no connection to the daemon");
      return session.request({ ...headers, ":method": method, ":path": path }, options);
    } catch (error) {
      this.drop();
      throw new NotSentError(error);
    }
  }

  notifyResponseByteRead(): void {}

  /** The next call makes a new connection; what is under way on this one may finish. */
  drop(): void {
    this.#session?.close();
    this.#session = undefined;
  }

  /** Whatever is under way fails. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#deps.launcher?.settle();
    this.#session = undefined;
    const closed = [...this.#open].map((session) => new Promise<void>((resolve) => session.once("close", resolve)));
    // Without an error its streams would end without a word, and calls wait for ever.
    for (const session of this.#open) session.destroy(closedError());
    await Promise.all(closed);
  }

  async #onFailure(error: unknown, options: ReachOptions, until: number): Promise<void> {
    const { launcher, socketPath } = this.#deps;
    const isAbsent = ["ENOENT", "ECONNREFUSED", "ECONNRESET", "EAGAIN", "EPIPE"].some((errno) =>
      hasErrno(error, errno),
    );
    if (!isAbsent) throw BelljarError.from(error);
    if (performance.now() >= until) {
      throw new BelljarError("DAEMON_UNAVAILABLE", `no daemon answers on ${socketPath}`, {
        facts: { socket: socketPath, timeoutMs: options.timeoutMs },
        cause: error,
      });
    }
    if (options.mayStart) await launcher?.launch();
    await sleep(apiLimits.reconnectIntervalMs);
  }

  async #connect(): Promise<void> {
    const socket = net.connect(this.#deps.socketPath);
    await new Promise<void>((resolve, reject) => {
      socket.setTimeout(apiLimits.connectTimeoutMs, () => {
        reject(new BelljarError("DAEMON_UNAVAILABLE", "the daemon does not take connections"));
        socket.destroy();
      });
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    socket.setTimeout(0);
    const session = http2.connect(this.authority, {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: apiLimits.streamWindowBytes },
      peerMaxConcurrentStreams: apiLimits.streamsPerConnectionMax,
    });
    const forget = (): void => {
      if (this.#session === session) this.#session = undefined;
    };
    session.on("goaway", forget);
    session.on("close", () => {
      forget();
      this.#open.delete(session);
    });
    // Each call under way is told of it too.
    session.on("error", forget);
    session.on("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(apiLimits.connectionWindowBytes);
    });
    if (this.#isClosed) {
      session.destroy();
      return;
    }
    this.#session = session;
    this.#open.add(session);
    this.#deps.launcher?.settle();
  }
}

export function closedError(): BelljarError {
  return new BelljarError("DAEMON_UNAVAILABLE", "this runtime was closed");
}
