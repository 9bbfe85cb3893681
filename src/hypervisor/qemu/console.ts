/** The guest's console as this process has seen it: its last bytes, and whether the guest's kernel panicked. */
import type { Socket } from "node:net";
import { lastLines, TextTail } from "./text-tail.ts";

export class GuestConsole {
  /** Settles, never rejects, when the VMM has closed the console and all of it has been read. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #tail = new TextTail();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#tail.push(chunk));
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => socket.on("close", () => resolve()));
    // The console is never what keeps a program running.
    socket.unref();
  }

  text(): string {
    return this.#tail.text();
  }

  /** The kernel's own words when it has panicked. */
  panic(): string | undefined {
    return lastLines(this.text(), Number.POSITIVE_INFINITY).findLast((line) => line.includes("Kernel panic - "));
  }

  close(): void {
    this.#socket.destroy();
  }
}
