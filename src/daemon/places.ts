/** Where the daemon of a root is found, what starts it, and how it ends when it may not: known to both ends. */
import { extname, join } from "node:path";

export function daemonSocketPath(runDir: string): string {
  return join(runDir, "belljard.sock");
}

/** What a daemon without a terminal writes to. */
export function daemonLogPath(root: string): string {
  return join(root, "belljard.log");
}

/** The program; the published package has JavaScript in its place. */
export const daemonProgram = join(import.meta.dirname, extname(import.meta.filename) === ".ts" ? "main.ts" : "main.js");

/** Exit status of a daemon that found the root taken: whoever started it talks to the one that has it. */
export const ROOT_LOCKED_STATUS = 75;
