/** Ids and names: generated, and validated before they touch a path, a command line or the guest. */
import { createHash, randomBytes } from "node:crypto";
import { BelljarError } from "./errors.ts";

/** Twelve hexadecimal digits: 48 bits are plenty for one host, and short enough to type and to fit a socket path. */
export function newId(): string {
  return randomBytes(6).toString("hex");
}

/** True for what `newId` makes, and nothing else. */
export function isId(value: string): boolean {
  return /^[0-9a-f]{12}$/.test(value);
}

/**
 * The machine id (see machine-id(5)) of a sandbox: the same each time it is started, and no other sandbox's. 32 hexadecimal digits,
 * marked as the random UUID that it is as good as.
 */
export function machineIdOf(sandboxId: string): string {
  const digits = createHash("sha256").update(`belljar machine ${sandboxId}`).digest("hex").slice(0, 32);
  const variant = "89ab".charAt(Number.parseInt(digits.charAt(16), 16) & 3);
  return `${digits.slice(0, 12)}4${digits.slice(13, 16)}${variant}${digits.slice(17)}`;
}

const SAFE_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;

/**
 * Checks an id or name that a user gave. What passes is safe as one path component, on a command line, and as a host name.
 * @throws BelljarError `INVALID_ARGUMENT`
 */
export function checkName(value: string, what: string): string {
  if (SAFE_NAME.test(value)) return value;
  const shown = value.length > 40 ? `${value.slice(0, 40)}...` : value;
  throw new BelljarError("INVALID_ARGUMENT", `${what} ${JSON.stringify(shown)} is not a valid name`, {
    remedy: "Use 1 to 63 letters, digits, dots, dashes or underscores, starting with a letter or digit.",
  });
}
