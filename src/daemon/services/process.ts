/**
 * Processes over the API. Output is a stream of pieces, each with its offset: a client whose connection, or whose daemon, has
 * died asks again from the first byte it has not got. While the client does not take the next piece nothing is read, but the
 * process is told now and then that there is a reader, so that it waits for it.
 */
import type { ServiceImpl } from "@connectrpc/connect";
import { BelljarError, linkLimits, streamLimits } from "../../base/index.ts";
import type { api } from "../../protocol/index.ts";
import type { AttachOptions, OutputPiece, ProcessHandle, Sandboxes } from "../../runtime/index.ts";
import type { Calls } from "../calls.ts";
import { missing } from "../wire/config.ts";
import { toStatus } from "../wire/info.ts";
import { findContainer, toFacts } from "./container.ts";

/** A process's end may come with its answer just after the wait; the client waits longer than this. */
const ANSWER_SLACK_MS = linkLimits.longPollSlackMs / 2;

export function processService(sandboxes: Sandboxes, calls: Calls): ServiceImpl<typeof api.ProcessService> {
  const find = async (ref: api.ProcessRef | undefined, options: AttachOptions = {}): Promise<ProcessHandle> => {
    if (ref === undefined) throw missing("process");
    const container = await findContainer(sandboxes, ref);
    return ref.process === "" ? await container.attach(options) : await container.process(ref.process, options);
  };
  return {
    getProcess: async ({ process }) => ({ process: toFacts(await find(process)) }),
    streamOutput: async function* ({ process, stream, offset, acknowledgedByClient }, context) {
      const number = streamNumber(stream);
      const handle = await find(process, { stdoutOffset: offset, stderrOffset: offset });
      yield* pieces(handle, { stream: number, from: offset, acknowledgedByClient }, calls.waiting(context));
    },
    acknowledgeOutput: async ({ process, stream, offset }, { signal }) => {
      const request = { stream: streamNumber(stream), offset, maxBytes: 0, waitMs: 0 };
      await (await find(process)).readOutput(request, { signal });
      return {};
    },
    writeInput: async ({ process, offset, data, end }, { signal }) => {
      if (data.length > streamLimits.chunkMaxBytes) {
        throw new BelljarError(
          "INVALID_ARGUMENT",
          `a piece of ${data.length} bytes is larger than may be sent at once`,
          {
            facts: { maxBytes: streamLimits.chunkMaxBytes },
          },
        );
      }
      const { accepted, closed } = await (await find(process)).writeInput({ offset, data, end }, { signal });
      return { accepted, closed };
    },
    waitProcess: async ({ process, waitMs }, context) => {
      const handle = await find(process);
      const longestMs = Math.trunc(Math.min(Math.max(0, waitMs), linkLimits.longPollMs)) || 0;
      // A process in a paused sandbox cannot even be asked: the answer is then the same, that it has not ended.
      const timeout = AbortSignal.timeout(longestMs + ANSWER_SLACK_MS);
      const signal = AbortSignal.any([calls.waiting(context), timeout]);
      try {
        const status = await handle.waitForEnd(longestMs, { signal });
        return status === undefined ? {} : { status: toStatus(status) };
      } catch (error) {
        if (timeout.aborted) return {};
        throw error;
      }
    },
    signalProcess: async ({ process, number }) => {
      await (await find(process)).signal(number);
      return {};
    },
    resizeTerminal: async ({ process, size }) => {
      if (size === undefined) throw missing("size");
      await (await find(process)).resize({ columns: size.columns, rows: size.rows });
      return {};
    },
    releaseProcess: async ({ process }) => {
      await (await find(process)).release();
      return {};
    },
  };
}

interface PiecesOptions {
  readonly stream: 1 | 2;
  readonly from: bigint;
  readonly acknowledgedByClient: boolean;
}

async function* pieces(
  process: ProcessHandle,
  { stream, from, acknowledgedByClient }: PiecesOptions,
  signal: AbortSignal,
): AsyncIterable<OutputPiece> {
  let offset = from;
  // The client's own word is another call's.
  const acknowledged = acknowledgedByClient ? from : undefined;
  let ended = false;
  let isReading = false;
  const touch = (detach: boolean): void => {
    // A failure shows at the next reading, and after the last one there is nobody to tell.
    process.readOutput({ stream, offset, acknowledged, maxBytes: 0, waitMs: 0, detach }).catch(() => {});
  };
  const renewal = setInterval(() => {
    if (!isReading) touch(false);
  }, streamLimits.readerRenewMs);
  try {
    while (!ended) {
      isReading = true;
      const piece = await process.readOutput(
        { stream, offset, acknowledged, maxBytes: streamLimits.chunkMaxBytes, waitMs: linkLimits.longPollMs },
        { signal },
      );
      isReading = false;
      ended = piece.end;
      offset = piece.offset + BigInt(piece.data.length);
      if (piece.data.length > 0 || ended) yield piece;
    }
  } finally {
    clearInterval(renewal);
    if (!ended) touch(true);
  }
}

function streamNumber(stream: number): 1 | 2 {
  if (stream === 1 || stream === 2) return stream;
  throw new BelljarError("INVALID_ARGUMENT", `${stream} is not a stream`, {
    remedy: "Ask for 1, standard output, or 2, standard error.",
  });
}
