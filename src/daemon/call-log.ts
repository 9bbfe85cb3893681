/** What the log says of a call: who asked for which operation on which sandbox, how it ended, and why. */
import { BelljarError, type Log, type LogFields, messageChain } from "../base/index.ts";

/** Said by clients of this library; what they say of themselves is for people who read logs, and decides nothing. */
export const CLIENT_HEADER = "belljar-client";

const CLIENT_MAX_LENGTH = 100;

/** What changes a sandbox, or what it is made of. Everything else is too frequent for a log that people read. */
const LOGGED =
  /^(?:Create|Start|Stop|Kill|Pause|Resume|Delete|Update|Rename|Add|Remove|Set|Prune|Grow|Restore|Fork|Import|Export|Rewind)/;

export interface CallFacts {
  readonly method: string;
  readonly message: unknown;
  readonly client: string | null;
}

export function logCall(log: Log, { method, message, client }: CallFacts, durationMs: number, thrown?: unknown): void {
  const fields: LogFields = {
    operation: method,
    sandbox: sandboxOf(message),
    client: client?.slice(0, CLIENT_MAX_LENGTH),
    ms: Math.round(durationMs),
  };
  const error = thrown === undefined ? undefined : BelljarError.from(thrown);
  if (error === undefined) {
    if (LOGGED.test(method)) log.info("done", fields);
    else log.debug("done", fields);
    return;
  }
  const why = { ...fields, reason: error.reason, cause: messageChain(error).join(": ") };
  if (error.reason === "INTERNAL") log.warn("failed", why);
  else if (LOGGED.test(method)) log.info("failed", why);
  else log.debug("failed", why);
}

/** Requests name it `sandbox`, or have it in the `container` that they name, or in that one's `process`. */
export function sandboxOf(message: unknown): string | undefined {
  if (typeof message !== "object" || message === null) return undefined;
  for (const name of ["sandbox", "container", "process", "spec"]) {
    const value: unknown = Reflect.get(message, name);
    if (typeof value === "string" && name === "sandbox") return value.slice(0, CLIENT_MAX_LENGTH);
    const deeper = typeof value === "object" ? sandboxOf(value) : undefined;
    if (deeper !== undefined) return deeper;
  }
  return undefined;
}
