/** QEMU locks its disks against other QEMUs; this is how it says that one has it, since it has no error class of its own for it. */
import { BelljarError } from "../../base/index.ts";

const LOCKED = /Failed to get (?:shared )?"[a-z ]+" lock|Failed to lock byte/;
const WHOSE = /another process using the image \[(.*)\]\?/;

export function isLocked(text: string): boolean {
  return LOCKED.test(text);
}

/** The path that QEMU names in its log. */
export function lockedPath(text: string): string | undefined {
  return WHOSE.exec(text)?.[1];
}

export function diskInUseError(path: string, cause?: unknown): BelljarError {
  return new BelljarError("DISK_IN_USE", `the disk ${path} is in use by another program`, { facts: { path }, cause });
}
