/**
 * The daemon's socket: HTTP/2 without TLS for the library, HTTP/1.1 for `curl --unix-socket`, told apart by a connection's
 * first bytes. The socket is bound under another name and renamed: where it stands, somebody listens, and what a killed daemon
 * left is replaced. Only the owner of the root may listen, so there are never two.
 */
import { chmod, rename, rm } from "node:fs/promises";
import http from "node:http";
import http2 from "node:http2";
import net from "node:net";
import { apiLimits, type Log } from "../base/index.ts";
import { shareSocket } from "./share-socket.ts";

export type RequestHandler = (
  request: http.IncomingMessage | http2.Http2ServerRequest,
  response: http.ServerResponse | http2.Http2ServerResponse,
) => void;

export interface ListenerDeps {
  readonly socketPath: string;
  readonly handle: RequestHandler;
  readonly log: Log;
  /** A socket that listens already, handed over by whoever started this process; its file is not ours. */
  readonly inheritedFd?: number | undefined;
}

/** Owner and group may connect. */
const SOCKET_MODE = 0o660;

/** What every connection of HTTP/2 begins with, as far as no method of HTTP/1.1 does. */
const HTTP2_BEGINNING = "PR";

export class Listener {
  readonly #deps: ListenerDeps;
  readonly #server: net.Server;
  readonly #http: http.Server;
  readonly #http2: http2.Http2Server;
  readonly #sockets = new Set<net.Socket>();
  readonly #sessions = new Set<http2.ServerHttp2Session>();

  private constructor(deps: ListenerDeps) {
    this.#deps = deps;
    this.#http = http.createServer(deps.handle);
    this.#http2 = http2.createServer(
      { settings: { maxConcurrentStreams: apiLimits.streamsPerConnectionMax } },
      deps.handle,
    );
    this.#http2.on("session", (session) => {
      this.#sessions.add(session);
      session.on("close", () => this.#sessions.delete(session));
    });
    this.#http2.on("sessionError", (error) => deps.log.debug("connection failed", { error: error.message }));
    this.#server = net.createServer((socket) => this.#accept(socket));
    this.#server.maxConnections = apiLimits.connectionsMax;
  }

  static async open(deps: ListenerDeps): Promise<Listener> {
    const listener = new Listener(deps);
    if (deps.inheritedFd !== undefined) {
      await listener.#listen({ fd: deps.inheritedFd });
      return listener;
    }
    const temporary = `${deps.socketPath}.new`;
    await rm(temporary, { force: true });
    await listener.#listen({ path: temporary });
    await chmod(temporary, SOCKET_MODE);
    await shareSocket(temporary);
    await rename(temporary, deps.socketPath);
    return listener;
  }

  async #listen(where: net.ListenOptions | { readonly fd: number }): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(where, resolve);
    });
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /** No new clients; those that are connected stay. */
  async stopListening(): Promise<void> {
    if (this.#deps.inheritedFd === undefined) await rm(this.#deps.socketPath, { force: true });
    this.#server.close();
  }

  /** Lets go of every client: tells it that no more is to come, waits for what is being written, then ends it. */
  async close(timeoutMs: number): Promise<void> {
    const closed = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once("close", resolve)));
    for (const session of this.#sessions) session.close();
    this.#http.closeIdleConnections();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([Promise.all(closed), late]);
    clearTimeout(timer);
    for (const socket of this.#sockets) socket.destroy();
  }

  #accept(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    const onError = (error: Error): void => this.#deps.log.debug("connection failed", { error: error.message });
    socket.on("error", onError);
    socket.setTimeout(apiLimits.firstByteTimeoutMs, () => socket.destroy());
    let seen: Buffer = Buffer.alloc(0);
    const look = (): void => {
      const bytes: unknown = socket.read();
      // At the end there is nothing to read.
      if (!Buffer.isBuffer(bytes)) return;
      seen = Buffer.concat([seen, bytes]);
      if (seen.length < HTTP2_BEGINNING.length) return;
      socket.off("readable", look);
      socket.off("end", onEnd);
      socket.setTimeout(0);
      socket.unshift(seen);
      const isHttp2 = seen.toString("latin1", 0, HTTP2_BEGINNING.length) === HTTP2_BEGINNING;
      (isHttp2 ? this.#http2 : this.#http).emit("connection", socket);
    };
    const onEnd = (): void => {
      socket.destroy();
    };
    socket.on("end", onEnd);
    socket.on("readable", look);
  }
}
