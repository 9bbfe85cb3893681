/**
 * Random bytes from the kernel, which is given fresh ones in every copy of a guest. What Node's `crypto` draws comes from a state in
 * the agent's process, which all copies have in common until it is seeded again, and nothing of Node's does that.
 */
import { closeSync, openSync, readSync } from "node:fs";

export function randomHex(bytes: number): string {
  const fd = openSync("/dev/urandom", "r");
  try {
    const buffer = Buffer.alloc(bytes);
    // The kernel gives as few as these in one piece.
    readSync(fd, buffer);
    return buffer.toString("hex");
  } finally {
    closeSync(fd);
  }
}

/** Of version 4. */
export function randomUuid(): string {
  const hex = randomHex(16);
  const variant = "89ab".charAt(Number.parseInt(hex.charAt(16), 16) & 3);
  const digits = `${hex.slice(0, 12)}4${hex.slice(13, 16)}${variant}${hex.slice(17)}`;
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
