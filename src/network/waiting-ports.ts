/**
 * The published ports of a sandbox that has no VM: this process listens on them in its place. The first connection, or datagram, is a
 * reason to wake it; connections that have come by then are handed on once it can take them, and are this process's until they end.
 */
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { connect, createServer, type Server, type Socket } from "node:net";
import { hibernationLimits, type Log, messageChain } from "../base/index.ts";
import { EVERY_ADDRESS, type PublishedPort, portText } from "./ports.ts";

export interface WaitingPortsDeps {
  readonly ports: readonly PublishedPort[];
  /** Somebody wants something. Resolves when the ports are the sandbox's again, which this object has let go of before. */
  readonly onKnock: () => Promise<void>;
  readonly log: Log;
}

export class WaitingPorts {
  readonly #deps: WaitingPortsDeps;
  readonly #servers: Server[] = [];
  readonly #datagrams: DatagramSocket[] = [];
  readonly #clients = new Set<Socket>();

  constructor(deps: WaitingPortsDeps) {
    this.#deps = deps;
  }

  /** A port that cannot be had is told, and the others are listened on. */
  async open(): Promise<void> {
    for (const port of this.#deps.ports) {
      const listening = port.protocol === "udp" ? this.#openDatagram(port) : this.#openServer(port);
      await listening.catch((error: unknown) => this.#warn("a sandbox cannot be woken at its port", port, error));
    }
  }

  /** The ports are free when it resolves. Clients that are there stay. */
  async letGo(): Promise<void> {
    const closing = this.#servers.splice(0).map((server) => new Promise((done) => closeServer(server, done)));
    for (const socket of this.#datagrams.splice(0)) {
      closing.push(new Promise<void>((done) => socket.close(() => done())));
    }
    await Promise.all(closing);
  }

  /** Nobody is handed on any more. */
  async close(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await this.letGo();
  }

  async #openServer(port: PublishedPort): Promise<void> {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (client) => {
      if (this.#clients.size >= hibernationLimits.waitingConnectionsMax) {
        client.destroy();
        return;
      }
      this.#clients.add(client);
      client.on("error", () => client.destroy());
      client.once("close", () => this.#clients.delete(client));
      this.#handOn(client, port).catch((error: unknown) => {
        client.destroy();
        this.#warn("a connection to a sleeping sandbox was lost", port, error);
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: port.hostAddress, port: port.hostPort, exclusive: true }, resolve);
    });
    server.unref();
    this.#servers.push(server);
  }

  async #openDatagram(port: PublishedPort): Promise<void> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind({ address: port.hostAddress, port: port.hostPort, exclusive: true }, resolve);
    });
    socket.unref();
    socket.on("error", (error) => this.#warn("a port of a sleeping sandbox has failed", port, error));
    // The datagram itself is lost, as datagrams may be: nobody could give the answer to who has sent it.
    socket.once("message", () => {
      this.#deps.onKnock().catch((error: unknown) => this.#warn("a datagram did not wake its sandbox", port, error));
    });
    this.#datagrams.push(socket);
  }

  #warn(message: string, port: PublishedPort, error: unknown): void {
    this.#deps.log.warn(message, { port: portText(port), cause: messageChain(error).join(": ") });
  }

  async #handOn(client: Socket, port: PublishedPort): Promise<void> {
    await this.#deps.onKnock();
    const server = await this.#reach(client, port);
    if (server === undefined) return;
    const end = (): void => {
      client.destroy();
      server.destroy();
    };
    server.on("error", end);
    client.once("close", end);
    server.once("close", end);
    client.pipe(server);
    server.pipe(client);
  }

  /** What listens in the guest, or the way to it, may take a moment. */
  async #reach(client: Socket, { hostAddress, hostPort }: PublishedPort): Promise<Socket | undefined> {
    const host = hostAddress === EVERY_ADDRESS ? "127.0.0.1" : hostAddress;
    const endMs = performance.now() + hibernationLimits.connectTimeoutMs;
    for (;;) {
      try {
        return await reach(host, hostPort);
      } catch (error) {
        if (client.destroyed) return undefined;
        if (performance.now() > endMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, hibernationLimits.connectRetryMs));
      }
    }
  }
}

async function reach(host: string, port: number): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return socket;
}

/** Its connections live on. */
function closeServer(server: Server, done: (nothing?: undefined) => void): void {
  server.close(() => done());
  // `close` tells when the last connection has ended, which is not what is waited for.
  done();
}
