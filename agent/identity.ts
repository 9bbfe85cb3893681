/**
 * Gives the guest's kernel fresh random numbers and the time, by a program that waits for them: see guest-image/programs/wake.c. A
 * copy of a guest has it too, waiting: in one that was just put into another process, starting a program is the slowest thing there is.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import type { Readable, Writable } from "node:stream";
import { BelljarError } from "../src/base/errors.ts";
import { toolLimits } from "../src/base/limits.ts";
import { decodeWakeAnswer, encodeWake, WAKE_ENTROPY_BYTES } from "../src/protocol/wake.ts";
import { Turns } from "./turns.ts";

export interface Identity {
  /** Any bytes that no other guest has been given. */
  readonly entropy: Uint8Array;
  /** Asked for at the last moment: milliseconds since the epoch; undefined leaves the clock alone. */
  readonly realtimeMs: () => number | undefined;
}

export type ApplyIdentity = (identity: Identity) => Promise<void>;

const PROGRAM = "belljar-wake";

interface Waiting {
  readonly child: ChildProcessByStdio<Writable, Readable, null>;
  /** Rejects when it ends. */
  readonly ended: Promise<never>;
}

export class IdentityProgram {
  readonly #path: string;
  readonly #turns = new Turns();
  #waiting: Promise<Waiting> | undefined;

  constructor(path = `/bin/${PROGRAM}`) {
    this.#path = path;
  }

  /** @throws BelljarError `AGENT_FAILED`; the next call starts another one */
  readonly apply: ApplyIdentity = (identity) =>
    // It runs, and waits: the time is not old when it is set.
    this.#ask(() => identityMessage(identity.entropy, identity.realtimeMs()));

  /** Ends the connections of these addresses. @throws BelljarError `AGENT_FAILED` */
  readonly disconnect = (addresses: readonly string[]): Promise<void> =>
    this.#ask(() => {
      const steps = addresses.map((address) => ({ kind: "disconnect", address, keepInside: false }) as const);
      return encodeWake({ entropy: randomBytes(WAKE_ENTROPY_BYTES), steps });
    });

  #ask(message: () => Buffer): Promise<void> {
    return this.#turns.take(async () => {
      const { child, ended } = await this.#waitingProgram();
      const { promise: late, reject } = Promise.withResolvers<never>();
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        reject(failure("did not answer"));
      }, toolLimits.timeoutMs);
      const answer = new Promise<Buffer>((resolve) => child.stdout.once("data", resolve));
      try {
        child.stdin.write(message());
        const { errno } = decodeWakeAnswer(await Promise.race([answer, ended, late]));
        if (errno !== 0) throw failure(`was refused by the kernel with errno ${errno}`);
      } finally {
        clearTimeout(timer);
        child.stdout.removeAllListeners("data");
      }
    });
  }

  #waitingProgram(): Promise<Waiting> {
    this.#waiting ??= this.#start().catch((error: unknown) => {
      this.#waiting = undefined;
      throw error;
    });
    return this.#waiting;
  }

  async #start(): Promise<Waiting> {
    const child = spawn(this.#path, [], { stdio: ["pipe", "pipe", "ignore"] });
    child.stdin.on("error", () => {});
    const ended = new Promise<never>((_, reject) => {
      child.on("error", (cause) => reject(failure("cannot be run", cause)));
      child.on("close", (code, signal) => {
        this.#waiting = undefined;
        reject(failure(code === null ? `was ended by ${signal}` : `ended with status ${code}`));
      });
    });
    ended.catch(() => {});
    await Promise.race([new Promise((resolve) => child.once("spawn", resolve)), ended]);
    return { child, ended };
  }
}

function failure(how: string, cause?: unknown): BelljarError {
  return new BelljarError("AGENT_FAILED", `${PROGRAM} in the guest ${how}`, { cause });
}

export function identityMessage(entropy: Uint8Array, realtimeMs: number | undefined): Buffer {
  const clock = realtimeMs === undefined ? undefined : { realtimeMs };
  return encodeWake({ entropy: createHash("sha512").update(entropy).digest(), clock, steps: [] });
}
