/** Runs the guest's identity program: fresh random numbers for its kernel, and the time. See src/guest/identity-program.ts. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { BelljarError } from "../src/base/errors.ts";
import { toolLimits } from "../src/base/limits.ts";

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

/** @throws BelljarError `AGENT_FAILED` */
export const applyIdentity: ApplyIdentity = (identity) =>
  new Promise((resolve, reject) => {
    const child = spawn(`/bin/${PROGRAM}`, [], { stdio: ["pipe", "ignore", "ignore"] });
    const timer = setTimeout(() => child.kill("SIGKILL"), toolLimits.timeoutMs);
    const fail = (how: string, cause?: unknown): void => {
      clearTimeout(timer);
      reject(new BelljarError("AGENT_FAILED", `${PROGRAM} in the guest ${how}`, { cause }));
    };
    // It runs, and waits for its record: the time in it is not old when it is set.
    child.on("spawn", () => child.stdin.end(identityRecord(identity.entropy, identity.realtimeMs())));
    child.stdin.on("error", () => {});
    child.on("error", (cause) => fail("cannot be run", cause));
    child.on("close", (code, signal) => {
      if (code !== 0) return fail(code === null ? `was ended by ${signal}` : `ended with status ${code}`);
      clearTimeout(timer);
      resolve();
    });
  });

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
