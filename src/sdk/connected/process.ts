/** A process behind the daemon: its calls by offset, for the streams that are made of them. */
import { linkLimits } from "../../base/index.ts";
import { fromStatus, incomplete } from "../../daemon/index.ts";
import type { api } from "../../protocol/index.ts";
import type { AttachOptions } from "../../runtime/index.ts";
import { type ProcessCalls, type ProcessFacts, StreamedProcess } from "../process-streams.ts";
import type { DaemonLink } from "./daemon-link.ts";
import { OutputFeed } from "./output-feed.ts";

export function connectProcess(
  link: DaemonLink,
  sandbox: string,
  facts: api.ProcessFacts | undefined,
  options: AttachOptions = {},
  started?: ProcessFacts["started"],
): StreamedProcess {
  if (facts === undefined) throw incomplete("process");
  const { containerId, processId, pid, tty } = facts;
  const { stdoutOffset = 0n, stderrOffset = 0n } = options;
  const address = { sandbox, container: containerId, process: processId };
  return new StreamedProcess(
    { containerId, id: processId, pid, tty, stdoutOffset, stderrOffset, started },
    processCalls(link, address),
  );
}

function processCalls(
  link: DaemonLink,
  address: { readonly sandbox: string; readonly container: string; readonly process: string },
): ProcessCalls {
  const feeds = { 1: new OutputFeed(link, address, 1), 2: new OutputFeed(link, address, 2) };
  return {
    readOutput: (request, options = {}) => feeds[request.stream].read(request, options.signal),
    writeInput: async ({ offset, data, end }, { signal } = {}) =>
      await link.call(
        { what: "input was written", repeatable: true, signal, timeoutMs: 0 },
        async ({ process }, options) => await process.writeInput({ process: address, offset, data, end }, options),
      ),
    waitForEnd: async (waitMs, { signal } = {}) => {
      const answer = await link.call(
        {
          what: "its end was waited for",
          repeatable: true,
          signal,
          timeoutMs: Math.min(waitMs, linkLimits.longPollMs) + linkLimits.longPollSlackMs,
        },
        ({ process }, options) => process.waitProcess({ process: address, waitMs }, options),
      );
      return fromStatus(answer.status);
    },
    signal: async (number) => {
      await link.call({ what: "a signal was sent", repeatable: false }, ({ process }, options) =>
        process.signalProcess({ process: address, number }, options),
      );
    },
    resize: async (size) => {
      await link.call({ what: "a terminal was resized", repeatable: true }, ({ process }, options) =>
        process.resizeTerminal({ process: address, size: { ...size } }, options),
      );
    },
    release: async () => {
      await link.call({ what: "a process was released", repeatable: true }, ({ process }, options) =>
        process.releaseProcess({ process: address }, options),
      );
    },
  };
}
