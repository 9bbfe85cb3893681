/**
 * A Unix socket in the place of the virtio-serial port, as the guest sees that one: one endless stream of bytes, with
 * one host at a time at its other end; what is read when none is there is nothing.
 */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { Port } from "../port.ts";

export class SocketPort implements Port {
  readonly #server: Server;
  #socket: Socket | undefined;
  readonly #arrived: Buffer[] = [];
  #wake: () => void = () => {};

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => {
      this.#socket?.destroy();
      this.#socket = socket;
      socket.on("data", (chunk: Buffer) => this.#bring(chunk));
      socket.on("error", () => {});
      socket.on("close", () => {
        if (this.#socket === socket) this.#socket = undefined;
        this.#bring(Buffer.alloc(0));
      });
      this.#wake();
    });
  }

  static async listen(path: string): Promise<SocketPort> {
    const server = createServer();
    server.listen(path);
    await once(server, "listening");
    return new SocketPort(server);
  }

  async read(): Promise<Buffer> {
    for (;;) {
      const chunk = this.#arrived.shift();
      if (chunk !== undefined) return chunk;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Bytes for a host that has gone away are lost, as those in the VM's queue are. */
  async write(bytes: Uint8Array): Promise<void> {
    const socket = this.#socket;
    if (socket === undefined) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        socket.off("close", done);
        resolve();
      };
      socket.once("close", done);
      socket.write(bytes, done);
    });
  }

  /** Cuts the host off, as a VM does that is being restored. */
  cut(): void {
    this.#socket?.destroy();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #bring(chunk: Buffer): void {
    this.#arrived.push(chunk);
    this.#wake();
  }
}
