/** Small files that are in the kernel's or the guest's memory: to wait for another thread takes longer than to read them. */
import { readFileSync } from "node:fs";
import { hasErrno } from "../src/base/errors.ts";

/** The text of the file; "" when it, or the device or controller behind it, is not there. @throws the system error of anything else */
export function readNow(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ENODEV")) return "";
    throw error;
  }
}
