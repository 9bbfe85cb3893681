/**
 * What the host, or the agent, says to the guest's wake program, and what that answers. The layout is that of the structures in
 * guest-image/programs/wake.c; numbers are little-endian.
 */
import { BelljarError } from "../base/errors.ts";
import { addressBytes } from "./rtnetlink.ts";

export type WakeStep =
  /** Written in place, and made as long as this. */
  | { readonly kind: "write"; readonly path: string; readonly text: string }
  | { readonly kind: "kill"; readonly pid: number }
  /** Of rtnetlink, each with its answer asked for, in this order; see rtnetlink.ts. */
  | {
      readonly kind: "network";
      readonly requests: readonly Uint8Array[];
      /** They remove what may be gone. */
      readonly mayBeGone: boolean;
    }
  /** Ends the connections of TCP whose end in the guest is this address; those who have them are told so. */
  | {
      readonly kind: "disconnect";
      readonly address: string;
      /** Not those of the guest with itself. */
      readonly keepInside: boolean;
    };

/** A file as it is to be in a copy; see WakeFile in agent.proto for the words in it. */
export interface PlannedFile {
  readonly path: string;
  readonly text: string;
}

/** An interface of the guest that is up, as it is when everything stands still. */
export interface PlannedInterface {
  /** The kernel's number of it. */
  readonly index: number;
  readonly name: string;
  readonly macAddress: string;
  readonly mtu: number;
  /** Each with its prefix; also those that are the kernel's own. */
  readonly addresses: readonly string[];
}

/** What the program is to do in a copy, as the agent says when everything stands still. */
export interface PlannedWake {
  readonly files: readonly PlannedFile[];
  readonly furtherPids: readonly number[];
  /** Written last: the containers run on then. */
  readonly thaw: PlannedFile;
  /** Those that the host gave it; undefined when it does not say. */
  readonly interfaces?: readonly PlannedInterface[] | undefined;
  /** The program knows of steps that end connections; that of an older guest does not. */
  readonly disconnects?: boolean | undefined;
  /** Has the agent stand still; `0` in the same file has it go on. */
  readonly rest?: PlannedFile | undefined;
}

export interface WakeMessage {
  readonly entropy: Uint8Array;
  /** Goes forward by so much, or is set; left alone without either. */
  readonly clock?: { readonly advanceMs: number } | { readonly realtimeMs: number } | undefined;
  readonly steps: readonly WakeStep[];
}

export interface WakeAnswer {
  /** 0 when everything was done, or the kernel's number for what went wrong. */
  readonly errno: number;
  /** How many of the steps were done. */
  readonly steps: number;
}

const HEADER_BYTES = 96;
/** What a guest is given at once: twice what its kernel's generator holds. */
export const WAKE_ENTROPY_BYTES = 64;
const STEP_BYTES = 128;
const PATH_BYTES = 112;
export const WAKE_MESSAGE_BYTES_MAX = 64 * 1024;
const KINDS = { write: 1, kill: 2, network: 3, disconnect: 4 } as const;
const [MAY_BE_GONE, KEEP_INSIDE] = [1, 1];
export const WAKE_ANSWER_BYTES = 8;

/** @throws BelljarError `INVALID_ARGUMENT` when it is more than the program takes */
export function encodeWake({ entropy, clock, steps }: WakeMessage): Buffer {
  if (entropy.length !== WAKE_ENTROPY_BYTES)
    throw new BelljarError("INVALID_ARGUMENT", "a guest is given 64 random bytes");
  const header = Buffer.alloc(HEADER_BYTES);
  if (clock !== undefined) {
    const isAdvance = "advanceMs" in clock;
    const ms = Math.max(0, isAdvance ? clock.advanceMs : clock.realtimeMs);
    const seconds = Math.floor(ms / 1000);
    header.writeUInt32LE(isAdvance ? 1 : 0, 4);
    header.writeBigInt64LE(BigInt(seconds), 8);
    header.writeBigInt64LE(BigInt(Math.floor((ms - seconds * 1000) * 1e6)), 16);
  }
  header.writeInt32LE(WAKE_ENTROPY_BYTES * 8, 24);
  header.writeInt32LE(WAKE_ENTROPY_BYTES, 28);
  header.set(entropy, 32);
  const message = Buffer.concat([header, ...steps.map(encodeStep)]);
  if (message.length > WAKE_MESSAGE_BYTES_MAX) {
    throw new BelljarError("INVALID_ARGUMENT", `${message.length} bytes are more than a guest wakes to`);
  }
  message.writeUInt32LE(message.length, 0);
  return message;
}

function encodeStep(step: WakeStep): Buffer {
  const head = Buffer.alloc(STEP_BYTES);
  head.writeUInt32LE(KINDS[step.kind], 0);
  if (step.kind === "kill") {
    head.writeUInt32LE(STEP_BYTES, 4);
    head.writeUInt32LE(step.pid, 8);
    return head;
  }
  if (step.kind === "network") {
    head.writeUInt32LE(step.mayBeGone ? MAY_BE_GONE : 0, 12);
    return withData(head, Buffer.concat(step.requests));
  }
  if (step.kind === "disconnect") {
    head.writeUInt32LE(step.keepInside ? KEEP_INSIDE : 0, 12);
    return withData(head, addressBytes(step.address));
  }
  const path = Buffer.from(step.path);
  const text = Buffer.from(step.text);
  if (path.length >= PATH_BYTES || path.includes(0)) {
    throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(step.path)} is no path that a guest is told of`);
  }
  path.copy(head, 16);
  return withData(head, text);
}

/** The next one begins where a number may. */
function withData(head: Buffer, data: Buffer): Buffer {
  const bytes = STEP_BYTES + Math.ceil(data.length / 8) * 8;
  head.writeUInt32LE(bytes, 4);
  head.writeUInt32LE(data.length, 8);
  return Buffer.concat([head, data], bytes);
}

/** @throws BelljarError `AGENT_FAILED` */
export function decodeWakeAnswer(bytes: Buffer): WakeAnswer {
  if (bytes.length !== WAKE_ANSWER_BYTES) throw new BelljarError("AGENT_FAILED", "the wake program says nothing whole");
  return { errno: bytes.readUInt32LE(0), steps: bytes.readUInt32LE(4) };
}
