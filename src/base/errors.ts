/**
 * The one error of Belljar: a closed code (what kind of failure), a closed reason (which failure), the facts as data, and
 * the chain of causes. Callers branch on `code` or `reason`, never on the text. Each reason has an entry in
 * docs/reference/errors.md.
 */

import type { ErrorCode, ErrorReason } from "./error-reasons.ts";
import { errorReasons } from "./error-reasons.ts";

/** Facts of an error: small, printable values under names that say their unit. */
export type ErrorFacts = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export interface ErrorOptions {
  readonly facts?: ErrorFacts;
  /** What the reader can do now, as one sentence; overrides the remedy that the reason carries. */
  readonly remedy?: string;
  readonly cause?: unknown;
}

export class BelljarError extends Error {
  override readonly name = "BelljarError";
  readonly reason: ErrorReason;
  readonly facts: ErrorFacts;
  readonly remedy: string | undefined;

  /** `message` holds all facts of this level and none of the cause's; the chain is printed once, at the top. */
  constructor(reason: ErrorReason, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.facts = options.facts ?? {};
    this.remedy = options.remedy ?? errorReasons[reason].remedy;
  }

  get code(): ErrorCode {
    return errorReasons[this.reason].code;
  }

  /** Makes a BelljarError of whatever was thrown; anything not ours becomes `INTERNAL`, or a reason from its errno. */
  static from(thrown: unknown): BelljarError {
    if (thrown instanceof BelljarError) return thrown;
    if (isSystemError(thrown) && thrown.code !== undefined) {
      const reason = reasonOfErrno(thrown.code);
      if (reason !== undefined) return new BelljarError(reason, thrown.message, { cause: thrown });
    }
    if (thrown instanceof Error) return new BelljarError("INTERNAL", thrown.message, { cause: thrown });
    return new BelljarError("INTERNAL", String(thrown));
  }
}

/** True for an error of the operating system as Node reports it (it carries an errno name such as `ENOENT`). */
export function isSystemError(thrown: unknown): thrown is NodeJS.ErrnoException {
  return thrown instanceof Error && "code" in thrown && typeof thrown.code === "string";
}

/** True when `thrown` is a system error with this errno name. */
export function hasErrno(thrown: unknown, errno: string): boolean {
  return isSystemError(thrown) && thrown.code === errno;
}

function reasonOfErrno(errno: string): ErrorReason | undefined {
  switch (errno) {
    case "ENOSPC":
    case "EDQUOT":
      return "DISK_FULL";
    case "EIO":
      return "DISK_FAILED";
    case "EROFS":
      return "READ_ONLY";
    case "EACCES":
    case "EPERM":
      return "PERMISSION_DENIED";
    case "ABORT_ERR":
      return "CANCELLED";
    default:
      return undefined;
  }
}

/** The messages of an error and its causes, outermost first, each once. */
export function messageChain(thrown: unknown): string[] {
  const messages: string[] = [];
  let current: unknown = thrown;
  for (let depth = 0; current !== undefined && depth < 16; depth += 1) {
    const message = current instanceof Error ? current.message : String(current);
    if (!messages.includes(message)) messages.push(message);
    current = current instanceof Error ? current.cause : undefined;
  }
  return messages;
}
