/** How a process ended: as the guest says it, brought into its ranges, and as it is kept. */
import type { AgentResponse } from "../agent-client/index.ts";
import type { Field } from "../base/index.ts";

export interface ProcessStatus {
  /** As a shell has it: 128 + N when signal N ended the process. */
  readonly exitCode: number;
  /** Number of the signal that ended the process. */
  readonly signal: number | undefined;
  /** The guest's kernel killed a process of the container for lack of memory. */
  readonly oomKilled: boolean;
  /** Milliseconds since the epoch, by the guest's clock. */
  readonly startedAtMs: number;
  readonly exitedAtMs: number;
  /** Why the command could not be executed at all; `exitCode` is 126 or 127 then. */
  readonly launchError: string | undefined;
}

const LAUNCH_ERROR_MAX_LENGTH = 400;

/** The guest may say anything. */
export function toStatus(answer: Omit<AgentResponse<"waitProcess">, "$typeName" | "$unknown">): ProcessStatus {
  return {
    exitCode: Math.min(answer.exitCode, 255),
    signal: answer.signal > 0 && answer.signal <= 64 ? answer.signal : undefined,
    oomKilled: answer.oomKilled,
    startedAtMs: toMilliseconds(answer.startedAtNs),
    exitedAtMs: toMilliseconds(answer.exitedAtNs),
    launchError: answer.launchError === "" ? undefined : cleanText(answer.launchError),
  };
}

export function toMilliseconds(nanoseconds: bigint): number {
  return Number(BigInt.asUintN(63, nanoseconds) / 1_000_000n);
}

/** One line of printable characters. */
function cleanText(text: string): string {
  return text
    .slice(0, LAUNCH_ERROR_MAX_LENGTH)
    .toWellFormed()
    .replace(/\p{Cc}/gu, " ");
}

export function decodeProcessStatus(field: Field): ProcessStatus {
  return {
    exitCode: field.field("exitCode").integer({ min: 0, max: 255 }),
    signal: field.field("signal").optional((value) => value.integer({ min: 1, max: 64 })),
    oomKilled: field.field("oomKilled").boolean(),
    startedAtMs: field.field("startedAtMs").integer({ min: 0 }),
    exitedAtMs: field.field("exitedAtMs").integer({ min: 0 }),
    launchError: field.field("launchError").optional((text) => text.string({ maxLength: 2 * LAUNCH_ERROR_MAX_LENGTH })),
  };
}
