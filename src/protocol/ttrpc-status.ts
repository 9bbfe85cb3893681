/**
 * Errors on the wire: google.rpc.Status with the reason of the BelljarError as a detail.
 *
 * The guest is hostile: of its status the host believes nothing but a reason that an agent may have, and a message that is
 * short and has no control characters.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { ErrorCode, ErrorReason } from "../base/error-reasons.ts";
import { BelljarError } from "../base/errors.ts";
import { linkLimits } from "../base/limits.ts";
import { ErrorDetailSchema, type TtrpcStatus, TtrpcStatusSchema } from "./generated/belljar/agent/v1/ttrpc_pb.js";

const DETAIL_TYPE = "type.googleapis.com/belljar.agent.v1.ErrorDetail";

/** google.rpc.Code */
const statusNumbers: Readonly<Record<ErrorCode, number>> = {
  canceled: 1,
  unknown: 2,
  invalid_argument: 3,
  deadline_exceeded: 4,
  not_found: 5,
  already_exists: 6,
  permission_denied: 7,
  resource_exhausted: 8,
  failed_precondition: 9,
  aborted: 10,
  out_of_range: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  data_loss: 15,
  unauthenticated: 16,
};

/** What an agent can have to say. Reasons about the host (its disk, its VMM) are not for the guest to claim. */
const agentReasons = [
  "INVALID_ARGUMENT",
  "CANCELLED",
  "DEADLINE_EXCEEDED",
  "AGENT_VERSION",
  "AGENT_FAILED",
  "COMMAND_NOT_FOUND",
  "COMMAND_NOT_EXECUTABLE",
  "CONTAINER_NOT_FOUND",
  "CONTAINER_EXISTS",
  "CONTAINER_START_FAILED",
  "PROCESS_NOT_FOUND",
  "USER_NOT_FOUND",
  "INVALID_TRANSITION",
  "FILE_NOT_FOUND",
  "FILE_EXISTS",
  "NOT_A_DIRECTORY",
  "IS_A_DIRECTORY",
  "NOT_A_FILE",
  "DIRECTORY_NOT_EMPTY",
  "PATH_INVALID",
  "FILE_READ_ONLY",
  "FILE_BUSY",
  "FILE_TOO_LARGE",
  "CONTAINER_DISK_FULL",
] as const satisfies readonly ErrorReason[];

export function encodeStatus(error: BelljarError): TtrpcStatus {
  const detail = create(ErrorDetailSchema, { reason: error.reason });
  return create(TtrpcStatusSchema, {
    code: statusNumbers[error.code],
    message: cleanMessage(error.message),
    details: [{ typeUrl: DETAIL_TYPE, value: toBinary(ErrorDetailSchema, detail) }],
  });
}

/** The error that a response's status stands for; undefined for success. Never throws. */
export function decodeStatus(status: TtrpcStatus | undefined): BelljarError | undefined {
  if (status === undefined || status.code === 0) return undefined;
  const message = cleanMessage(status.message);
  return new BelljarError(decodeReason(status), message === "" ? "the agent gave no reason" : message, {
    facts: { statusCode: status.code },
  });
}

function decodeReason(status: TtrpcStatus): ErrorReason {
  const detail = status.details.find((entry) => entry.typeUrl === DETAIL_TYPE);
  if (detail === undefined) return "AGENT_FAILED";
  try {
    const { reason } = fromBinary(ErrorDetailSchema, detail.value);
    return agentReasons.find((known) => known === reason) ?? "AGENT_FAILED";
  } catch {
    return "AGENT_FAILED";
  }
}

/** Text from the guest as it may be shown: one line, without control or direction characters, of bounded length. */
export function cleanMessage(text: string): string {
  const bounded = text.length > linkLimits.messageMaxLength ? `${text.slice(0, linkLimits.messageMaxLength)}...` : text;
  return bounded
    .toWellFormed()
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ")
    .trim();
}
