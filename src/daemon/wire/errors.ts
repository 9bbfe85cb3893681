/**
 * Errors across the API: the daemon's BelljarError goes into the detail of a Connect error and comes out as the same error,
 * its facts, remedy and causes included. What is no error of ours becomes one by its Connect code.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  apiLimits,
  BelljarError,
  type ErrorCode,
  type ErrorFacts,
  type ErrorReason,
  errorReasons,
} from "../../base/index.ts";
import { api } from "../../protocol/index.ts";

const codes: { readonly [code in ErrorCode]: Code } = {
  canceled: Code.Canceled,
  unknown: Code.Unknown,
  invalid_argument: Code.InvalidArgument,
  deadline_exceeded: Code.DeadlineExceeded,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  permission_denied: Code.PermissionDenied,
  resource_exhausted: Code.ResourceExhausted,
  failed_precondition: Code.FailedPrecondition,
  aborted: Code.Aborted,
  out_of_range: Code.OutOfRange,
  unimplemented: Code.Unimplemented,
  internal: Code.Internal,
  unavailable: Code.Unavailable,
  data_loss: Code.DataLoss,
  unauthenticated: Code.Unauthenticated,
};

export function toConnectError(thrown: unknown): ConnectError {
  // What Connect itself refused (a message too large, JSON that is none) has its code already.
  if (thrown instanceof ConnectError) return thrown;
  const error = knownError(thrown);
  const detail = create(api.ErrorDetailSchema, toDetail(error, 1));
  return new ConnectError(error.message, codes[error.code], undefined, [
    { desc: api.ErrorDetailSchema, value: detail },
  ]);
}

/** A call whose time was over, or whose client went, was ended with an error of Connect's: that is nothing internal. */
export function knownError(thrown: unknown): BelljarError {
  const error = BelljarError.from(thrown);
  const { cause } = error;
  const connect = thrown instanceof ConnectError ? thrown : cause instanceof ConnectError ? cause : undefined;
  if (connect === undefined || error.reason !== "INTERNAL") return error;
  if (connect.code === Code.DeadlineExceeded) {
    return new BelljarError("DEADLINE_EXCEEDED", "the time that the client gave was over", { cause: connect });
  }
  if (connect.code === Code.Canceled) return new BelljarError("CANCELLED", "the client gave up", { cause: connect });
  return error;
}

/** The error that the daemon met; undefined when it is not the daemon that speaks: the connection failed. */
export function fromConnectError(error: ConnectError): BelljarError | undefined {
  const [detail] = error.findDetails(api.ErrorDetailSchema);
  if (detail !== undefined) return fromDetail(detail, 1);
  switch (error.code) {
    case Code.InvalidArgument:
      return new BelljarError("INVALID_ARGUMENT", error.rawMessage, { cause: error });
    case Code.DeadlineExceeded:
      return new BelljarError("DEADLINE_EXCEEDED", error.rawMessage, { cause: error });
    case Code.ResourceExhausted:
      return new BelljarError("DAEMON_BUSY", error.rawMessage, { cause: error });
    case Code.Unimplemented:
      return new BelljarError("INTERNAL", `the daemon is of another version: ${error.rawMessage}`, {
        remedy: "Stop it with `belljar daemon stop`; the next call starts one of this version.",
        cause: error,
      });
    default:
      return undefined;
  }
}

function toDetail(error: Error, depth: number): MessageInitShape<typeof api.ErrorDetailSchema> {
  const { cause } = error;
  const own = error instanceof BelljarError ? error : undefined;
  const facts = Object.entries(own?.facts ?? {}).map(([name, value]) => [name, { value: toFact(value) }] as const);
  return {
    reason: own?.reason ?? "",
    message: error.message,
    facts: Object.fromEntries(facts),
    ...(own?.remedy === undefined ? {} : { remedy: own.remedy }),
    ...(cause instanceof Error && depth < apiLimits.errorDepthMax ? { cause: toDetail(cause, depth + 1) } : {}),
  };
}

function fromDetail(detail: api.ErrorDetail, depth: number): BelljarError {
  const facts = Object.entries(detail.facts).flatMap(([name, { value }]): [string, ErrorFacts[string]][] => {
    if (value.case === undefined) return [];
    return [[name, value.case === "list" ? value.value.values : value.value]];
  });
  const deeper = detail.cause !== undefined && depth < apiLimits.errorDepthMax;
  return new BelljarError(reasonOf(detail.reason), detail.message, {
    facts: Object.fromEntries(facts),
    ...(detail.remedy === undefined ? {} : { remedy: detail.remedy }),
    ...(deeper && detail.cause !== undefined ? { cause: fromDetail(detail.cause, depth + 1) } : {}),
  });
}

function toFact(value: ErrorFacts[string]): api.FactValue["value"] {
  switch (typeof value) {
    case "string":
      return { case: "text", value };
    case "number":
      return { case: "number", value };
    case "boolean":
      return { case: "flag", value };
    default:
      return { case: "list", value: create(api.FactListSchema, { values: [...value] }) };
  }
}

/** A newer daemon may have reasons that this program does not know. */
function reasonOf(name: string): ErrorReason {
  return isReason(name) ? name : "INTERNAL";
}

function isReason(name: string): name is ErrorReason {
  return Object.hasOwn(errorReasons, name);
}
