/** What is made of a process's streams: a whole result. */
import { constants } from "node:os";
import { cancelledError } from "./deadline.ts";
import { BelljarError } from "./errors.ts";
import { streamLimits } from "./limits.ts";
import type { OutputStreams } from "./output-lines.ts";

/** A process, wherever it is. */
export interface CollectedProcess extends OutputStreams {
  readonly status: Promise<{ readonly exitCode: number }>;
  signal(number: number): Promise<void>;
  release(): Promise<void>;
}

export interface CollectOptions {
  readonly signal?: AbortSignal | undefined;
  /** The process is ended when the signal fires; true unless told. */
  readonly endOnAbort?: boolean | undefined;
}

/**
 * Runs a process to its end and keeps what it writes, as UTF-8. A caller that gives up ends the process, unless it said otherwise.
 * @throws BelljarError `OUTPUT_TOO_LARGE`, `CANCELLED`
 */
export async function collectResult(
  process: CollectedProcess,
  { signal, endOnAbort = true }: CollectOptions = {},
): Promise<{ readonly exitCode: number; readonly stdout: string; readonly stderr: string }> {
  const readers = [process.stdout.getReader(), process.stderr.getReader()] as const;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(cancelledError(signal));
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  let goesOn = false;
  try {
    const all = Promise.all([process.status, collectText(readers[0]), collectText(readers[1])]);
    const [status, stdout, stderr] = await Promise.race([all, aborted]);
    return { exitCode: status.exitCode, stdout, stderr };
  } catch (error) {
    goesOn = !endOnAbort && signal?.aborted === true;
    // One that nobody reads any more is not held up.
    if (goesOn) await Promise.allSettled(readers.map((reader) => reader.cancel()));
    else await process.signal(constants.signals.SIGKILL).catch(() => {});
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
    // What cannot be forgotten now goes with the container.
    if (!goesOn) await process.release().catch(() => {});
  }
}

async function collectText(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    bytes += piece.value.length;
    if (bytes > streamLimits.collectMaxBytes) {
      throw new BelljarError("OUTPUT_TOO_LARGE", `the command wrote more than ${streamLimits.collectMaxBytes} bytes`, {
        facts: { maxBytes: streamLimits.collectMaxBytes },
      });
    }
    chunks.push(piece.value);
  }
  return Buffer.concat(chunks).toString("utf8");
}
