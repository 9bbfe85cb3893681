/**
 * The program that brings copies of this guest back (guest-image/programs/wake.c): started once, it waits on a port of its own in every copy
 * that is made from then on, and needs nothing of the agent.
 */
import { spawn } from "node:child_process";
import { WAKE_PORT } from "../src/protocol/ports.ts";
import { openPort } from "./port.ts";

const PROGRAM = "/bin/belljar-wake";

export class Waker {
  #isThere = false;

  /** It waits. Without it, copies are brought back by the agent. */
  get isThere(): boolean {
    return this.#isThere;
  }

  /** A VM of an older host has no port for it. */
  async start(): Promise<void> {
    const port = await openPort(WAKE_PORT);
    if (port === undefined) return;
    const child = spawn(PROGRAM, [], { stdio: [port.fd, port.fd, "inherit"], detached: true });
    child.once("spawn", () => {
      this.#isThere = true;
    });
    child.once("error", (error) => this.#gone(error.message));
    child.once("close", (code, signal) => this.#gone(code === null ? `ended by ${signal}` : `ended with ${code}`));
    child.unref();
    await port.close();
  }

  #gone(how: string): void {
    this.#isThere = false;
    process.stderr.write(`belljar agent: ${PROGRAM}: ${how}\n`);
  }
}
