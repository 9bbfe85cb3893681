/**
 * The guest's own small programs in C, guest-image/programs/*.c: compiled by tcc of Debian's package, which is unpacked for that and not
 * installed. They are freestanding: no header, no library, and the same source is the same bytes.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, runTool } from "../base/index.ts";

const TIMEOUT_MS = 30_000;

/** @param compilerDir where the package `tcc` was unpacked. @throws BelljarError `GUEST_BUILD_FAILED` with what the compiler says */
export async function compileProgram(
  compilerDir: string,
  source: string,
  output: string,
  signal?: AbortSignal,
): Promise<void> {
  const compiler = join(compilerDir, "usr/bin/tcc");
  try {
    await runTool(compiler, ["-nostdlib", "-static", "-Wall", "-Werror", "-o", output, source], {
      signal,
      timeoutMs: TIMEOUT_MS,
    });
  } catch (thrown) {
    await rm(output, { force: true });
    const error = BelljarError.from(thrown);
    if (error.reason === "CANCELLED") throw error;
    throw new BelljarError("GUEST_BUILD_FAILED", `${source} cannot be compiled: ${error.message}`, { cause: error });
  }
}
