/** Methods about one process of a container, and its streams. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../src/base/errors.ts";
import { checkName } from "../src/base/ids.ts";
import type { WaitProcessResponseSchema } from "../src/protocol/index.ts";
import type { ContainerTable } from "./container-table.ts";
import type { Handlers } from "./methods.ts";
import type { GuestProcess } from "./process.ts";
import type { ServiceDeps } from "./service-deps.ts";
import { parseObject, type TerminalSize } from "./spec.ts";
import type { Standstill } from "./standstill.ts";

type ProcessHandlers = Pick<
  Handlers,
  | "execProcess"
  | "prepareProcess"
  | "readOutput"
  | "releaseProcess"
  | "resizeTerminal"
  | "signalProcess"
  | "startContainer"
  | "waitProcess"
  | "writeInput"
>;

const SIGNAL_MAX = 64;
const TERMINAL_SIDE_MAX = 0xffff;

export function processHandlers(
  deps: Pick<ServiceDeps, "procDir" | "runTool">,
  containers: ContainerTable,
  standstill: Pick<Standstill, "launch">,
): ProcessHandlers {
  const findProcess = async (containerId: string, processId: string): Promise<GuestProcess> =>
    await (await containers.get(containerId)).processes.get(processId);

  return {
    startContainer: async (request, { signal }) => {
      const container = await containers.get(request.containerId);
      const options = { stdin: request.stdin, terminalSize: checkSize(request.terminalSize) };
      await containers.makeRoomForProcess();
      const { pid, startedAtNs } = await standstill.launch(() => container.start(options), signal);
      return { pid, startedAtNs };
    },

    execProcess: async (request, { signal }) => {
      const container = await containers.get(request.containerId);
      const options = {
        processId: checkName(request.processId, "process id"),
        process: parseObject(request.processJson, "the process"),
        user: request.user,
        stdin: request.stdin,
        terminalSize: checkSize(request.terminalSize),
      };
      await containers.makeRoomForProcess();
      const { pid, startedAtNs } = await standstill.launch(() => container.exec(options), signal);
      return { pid, startedAtNs };
    },

    prepareProcess: async (request, { signal }) => {
      const container = await containers.get(request.containerId);
      await standstill.launch(() => container.prepareProcess(), signal);
      return {};
    },

    signalProcess: async (request) => {
      if (request.signal < 1 || request.signal > SIGNAL_MAX) {
        throw new BelljarError("INVALID_ARGUMENT", `there is no signal ${request.signal}`);
      }
      await (await containers.get(request.containerId)).signal(request.processId, request.signal, request.all);
      return {};
    },

    waitProcess: async (request, context) => {
      const found = await findProcess(request.containerId, request.processId);
      await found.waitForEnd(request.waitMs, context.signal);
      return endMessage(found);
    },

    releaseProcess: async (request) => {
      await (await containers.find(request.containerId))?.processes.release(request.processId);
      return {};
    },

    resizeTerminal: async (request) => {
      const size = checkSize(request.size);
      const found = await findProcess(request.containerId, request.processId);
      if (size === undefined || !found.terminal) {
        throw new BelljarError("INVALID_ARGUMENT", "only a terminal can be resized, and to a size");
      }
      if (found.end !== undefined) return {};
      // Its standard input is the terminal, unless the program has put something else there.
      for (const fd of [0, 1, 2]) {
        const terminal = `${deps.procDir}/${found.pid}/fd/${fd}`;
        const args = ["stty", "-F", terminal, "cols", String(size.columns), "rows", String(size.rows)];
        const failed = await deps.runTool("busybox", args).then(
          () => false,
          () => true,
        );
        if (!failed) break;
      }
      return {};
    },

    readOutput: async (request, context) => {
      const found = await findProcess(request.containerId, request.processId);
      const chunk = await found.output(request.stream).read(
        {
          ...request,
          offset: checkOffset(request.offset),
          acknowledged: request.acknowledged === undefined ? undefined : checkOffset(request.acknowledged),
        },
        context,
      );
      return { ...chunk, offset: BigInt(chunk.offset) };
    },

    writeInput: async (request, context) => {
      const { input } = await findProcess(request.containerId, request.processId);
      const state = await input.write({ ...request, offset: checkOffset(request.offset) }, context.signal);
      return { accepted: BigInt(state.accepted), closed: state.closed };
    },
  };
}

/** How a process ended, or that it has not. */
export function endMessage({ end, startedAtNs }: GuestProcess): MessageInitShape<typeof WaitProcessResponseSchema> {
  return end === undefined ? { ended: false, startedAtNs } : { ended: true, startedAtNs, ...end };
}

/** Offsets are numbers inside the agent: 2^53 bytes take years to write. */
function checkOffset(offset: bigint): number {
  if (offset <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(offset);
  throw new BelljarError("INVALID_ARGUMENT", `there is no offset ${offset}`);
}

function checkSize(size: TerminalSize | undefined): TerminalSize | undefined {
  if (size === undefined) return undefined;
  const { columns, rows } = size;
  if (columns >= 1 && rows >= 1 && columns <= TERMINAL_SIDE_MAX && rows <= TERMINAL_SIDE_MAX) return { columns, rows };
  throw new BelljarError("INVALID_ARGUMENT", `a terminal cannot have ${columns} columns and ${rows} rows`);
}
