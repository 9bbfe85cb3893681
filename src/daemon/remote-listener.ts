/**
 * The API over TCP: TLS 1.2 or newer, and a token with every request; there is no other way. HTTP/2 and HTTP/1.1, as the client's
 * TLS negotiates. Whoever has a token can do what the root's owner can.
 */
import http2 from "node:http2";
import type { Socket } from "node:net";
import { apiLimits, BelljarError, type Log } from "../base/index.ts";
import { CLIENT_HEADER } from "./call-log.ts";
import type { RequestHandler } from "./listener.ts";
import type { Tokens } from "./tokens.ts";
import { toConnectError } from "./wire/errors.ts";

export interface RemoteConfig {
  readonly host: string;
  /** 0: one that is free. */
  readonly port: number;
  /** PEM. */
  readonly certificate: string;
  readonly key: string;
  readonly tokens: Tokens;
}

export interface RemoteListenerDeps {
  readonly config: RemoteConfig;
  readonly handle: RequestHandler;
  readonly log: Log;
}

export class RemoteListener {
  readonly port: number;
  readonly #server: http2.Http2SecureServer;
  readonly #sockets: ReadonlySet<Socket>;
  readonly #sessions: ReadonlySet<http2.ServerHttp2Session>;

  private constructor(
    server: http2.Http2SecureServer,
    port: number,
    sockets: ReadonlySet<Socket>,
    sessions: ReadonlySet<http2.ServerHttp2Session>,
  ) {
    this.#server = server;
    this.port = port;
    this.#sockets = sockets;
    this.#sessions = sessions;
  }

  /** @throws BelljarError `INVALID_ARGUMENT` when certificate and key cannot be used, or the address is taken */
  static async open({ config, handle, log }: RemoteListenerDeps): Promise<RemoteListener> {
    const { host, port, certificate, key, tokens } = config;
    const sockets = new Set<Socket>();
    const sessions = new Set<http2.ServerHttp2Session>();
    try {
      const server = http2.createSecureServer(
        {
          cert: certificate,
          key,
          minVersion: "TLSv1.2",
          allowHTTP1: true,
          handshakeTimeout: apiLimits.firstByteTimeoutMs,
          settings: { maxConcurrentStreams: apiLimits.streamsPerConnectionMax },
        },
        requireToken(handle, tokens),
      );
      server.maxConnections = apiLimits.connectionsMax;
      server.on("connection", (socket: Socket) => {
        sockets.add(socket);
        socket.on("close", () => sockets.delete(socket));
      });
      server.on("session", (session) => {
        sessions.add(session);
        session.on("close", () => sessions.delete(session));
      });
      const tell = (error: Error): void => log.debug("connection failed", { error: error.message });
      server.on("tlsClientError", tell).on("sessionError", tell);
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(port, host, resolve);
      });
      const address = server.address();
      const listening = typeof address === "object" && address !== null ? address.port : port;
      return new RemoteListener(server, listening, sockets, sessions);
    } catch (cause) {
      throw new BelljarError("INVALID_ARGUMENT", `the daemon cannot listen on ${host}:${port} with TLS`, { cause });
    }
  }

  get connections(): number {
    return this.#sockets.size;
  }

  stopListening(): void {
    this.#server.close();
  }

  async close(timeoutMs: number): Promise<void> {
    const closed = [...this.#sockets].map((socket) => new Promise((resolve) => socket.once("close", resolve)));
    for (const session of this.#sessions) session.close();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([Promise.all(closed), late]);
    clearTimeout(timer);
    for (const socket of this.#sockets) socket.destroy();
  }
}

function requireToken(handle: RequestHandler, tokens: Tokens): RequestHandler {
  return (request, response) => {
    const name = tokens.find(request.headers.authorization);
    if (name !== undefined) {
      // Here it is known who calls, whatever the client says of itself.
      request.headers[CLIENT_HEADER] = `token ${name} from ${request.socket.remoteAddress ?? "?"}`;
      handle(request, response);
      return;
    }
    const error = toConnectError(new BelljarError("UNAUTHENTICATED", "the daemon wants a token"));
    response.statusCode = 401;
    response.setHeader("content-type", "application/json");
    response.setHeader("www-authenticate", "Bearer");
    response.end(JSON.stringify({ code: "unauthenticated", message: error.rawMessage }));
  };
}
