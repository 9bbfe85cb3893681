/**
 * Gives the guest's kernel fresh random numbers and the time, by a program that waits for them: see src/guest/identity-program.ts. A
 * copy of a guest has it too, waiting.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import type { Readable, Writable } from "node:stream";
import { BelljarError } from "../src/base/errors.ts";
import { toolLimits } from "../src/base/limits.ts";
import { Turns } from "./turns.ts";

export interface Identity {
  /** Any bytes that no other guest has been given. */
  readonly entropy: Uint8Array;
  /** Asked for at the last moment: milliseconds since the epoch; undefined leaves the clock alone. */
  readonly realtimeMs: () => number | undefined;
}

export type ApplyIdentity = (identity: Identity) => Promise<void>;

const PROGRAM = "belljar-identity";
const ENTROPY_BYTES = 64;
const ENTROPY_OFFSET = 16;
const RECORD_BYTES = ENTROPY_OFFSET + 8 + ENTROPY_BYTES;

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
    this.#turns.take(async () => {
      const { child, ended } = await this.#waitingProgram();
      const { promise: late, reject } = Promise.withResolvers<never>();
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        reject(failure("did not answer"));
      }, toolLimits.timeoutMs);
      const taken = new Promise<void>((resolve) => child.stdout.once("data", () => resolve()));
      try {
        // It runs, and waits for its record: the time in it is not old when it is set.
        child.stdin.write(identityRecord(identity.entropy, identity.realtimeMs()));
        await Promise.race([taken, ended, late]);
      } finally {
        clearTimeout(timer);
        child.stdout.removeAllListeners("data");
      }
    });

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

/** struct timespec, then struct rand_pool_info: bits, bytes, and as many of them. */
export function identityRecord(entropy: Uint8Array, realtimeMs: number | undefined): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  if (realtimeMs !== undefined) {
    const seconds = Math.floor(realtimeMs / 1000);
    record.writeBigInt64LE(BigInt(seconds), 0);
    record.writeBigInt64LE(BigInt(Math.floor((realtimeMs - seconds * 1000) * 1_000_000)), 8);
  }
  record.writeInt32LE(ENTROPY_BYTES * 8, ENTROPY_OFFSET);
  record.writeInt32LE(ENTROPY_BYTES, ENTROPY_OFFSET + 4);
  createHash("sha512")
    .update(entropy)
    .digest()
    .copy(record, ENTROPY_OFFSET + 8);
  return record;
}
