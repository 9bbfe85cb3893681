/** What is made of a process's streams: a whole result. */
import { constants } from "node:os";
import { BelljarError, cancelledError, streamLimits } from "../base/index.ts";
import type { ExecResult, ProcessHandle } from "../runtime/index.ts";

/**
 * Runs a process to its end and keeps what it writes, as UTF-8. A caller that gives up ends the process.
 * @throws BelljarError `OUTPUT_TOO_LARGE`, `CANCELLED`
 */
export async function collectResult(process: ProcessHandle, signal: AbortSignal | undefined): Promise<ExecResult> {
  const kill = (): Promise<void> => process.signal(constants.signals.SIGKILL);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelledError(signal));
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  try {
    const all = Promise.all([process.status, collectText(process.stdout), collectText(process.stderr)]);
    const [status, stdout, stderr] = await Promise.race([all, aborted]);
    return { exitCode: status.exitCode, stdout, stderr };
  } catch (error) {
    await kill().catch(() => {});
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
    // What cannot be forgotten now goes with the container.
    await process.release().catch(() => {});
  }
}

async function collectText(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes > streamLimits.collectMaxBytes) {
      throw new BelljarError("OUTPUT_TOO_LARGE", `the command wrote more than ${streamLimits.collectMaxBytes} bytes`, {
        facts: { maxBytes: streamLimits.collectMaxBytes },
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
