/** What the guest's kernel has said: of a process that crashed, or was killed for lack of memory, nobody else says why. */
import { closeSync, constants, openSync, readSync } from "node:fs";
import { hasErrno } from "../src/base/errors.ts";

/** What one record has at most, in the kernel's own buffer. */
const RECORD_BYTES = 8192;
/** More than the kernel keeps. */
const RECORDS_MAX = 20_000;

/** The last lines, oldest first; none where there is no log to be read. */
export function lastKernelLines(count: number, path = "/dev/kmsg"): readonly string[] {
  let log: number;
  try {
    log = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return [];
  }
  try {
    return readRecords(log).slice(-count);
  } finally {
    closeSync(log);
  }
}

/** Each is read by itself: `priority,number,microseconds,flags;text`, and lines that begin with a space for programs. */
function readRecords(log: number): string[] {
  const lines: string[] = [];
  const record = Buffer.alloc(RECORD_BYTES);
  for (let tries = 0; tries < RECORDS_MAX; tries += 1) {
    try {
      const bytes = readSync(log, record, 0, record.length, null);
      if (bytes === 0) break;
      const [line = ""] = record.toString("latin1", 0, bytes).split("\n");
      lines.push(line.replace(/^[^;]*;/, ""));
    } catch (error) {
      // Overwritten before it was read; the next one is there.
      if (hasErrno(error, "EPIPE")) continue;
      break;
    }
  }
  return lines;
}
