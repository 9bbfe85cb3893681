/** Waits until a host is connected to the port, without looking again and again: guest-image/programs/host-wait.c does it. */
import { type ChildProcess, spawn } from "node:child_process";
import type { FileHandle } from "node:fs/promises";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { BelljarError } from "../src/base/errors.ts";

const PROGRAM = "/bin/belljar-host-wait";
/** Between two looks where the program is not there; the first ones are closer together, since a host that reconnects does so at once. */
const LOOK_MIN_MS = 5;
const LOOK_MAX_MS = 100;

export class HostWait {
  readonly #stdin: Writable;
  readonly #stdout: Readable;
  #child: ChildProcess | undefined;
  #lookMs = 0;

  private constructor(child: ChildProcess, stdin: Writable, stdout: Readable) {
    this.#child = child;
    this.#stdin = stdin;
    this.#stdout = stdout;
    stdin.on("error", () => {});
    child.once("error", (error) => this.#gone(error.message));
    child.once("close", (code, signal) => this.#gone(code === null ? `ended by ${signal}` : `ended with ${code}`));
    child.unref();
  }

  /** @param port the one that the agent reads; the program has it, too */
  static start(port: Pick<FileHandle, "fd">, program = PROGRAM): HostWait {
    const child = spawn(program, [], { stdio: ["pipe", "pipe", "inherit", port.fd], detached: true });
    const { stdin, stdout } = child;
    if (stdin === null || stdout === null) throw new BelljarError("AGENT_FAILED", `${program} has no pipes`);
    return new HostWait(child, stdin, stdout);
  }

  /** After a read that answered nothing. Resolves when it is worth the while to read again. */
  async wait(): Promise<void> {
    const child = this.#child;
    if (child === undefined) {
      this.#lookMs = Math.min(Math.max(this.#lookMs * 2, LOOK_MIN_MS), LOOK_MAX_MS);
      await sleep(this.#lookMs);
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#stdout.once("data", resolve);
    child.once("close", resolve);
    this.#stdin.write("?");
    await promise;
    this.#stdout.off("data", resolve);
    child.off("close", resolve);
  }

  /** A host was there. */
  hasCome(): void {
    this.#lookMs = 0;
  }

  #gone(how: string): void {
    this.#child = undefined;
    process.stderr.write(`belljar agent: ${PROGRAM}: ${how}\n`);
  }
}
