/** The agent's methods: checks what the host asks, and hands it to the container, process or system that it is about. */

import { BelljarError } from "../src/base/errors.ts";
import { checkName } from "../src/base/ids.ts";
import { VERSION } from "../src/base/version.ts";
import { PROTOCOL_VERSION } from "../src/protocol/version.ts";
import { type ContainerDeps, checkProcessCount, GuestContainer } from "./container.ts";
import type { GuestProcess } from "./process.ts";
import type { Handlers } from "./server.ts";
import { parseObject, type TerminalSize } from "./spec.ts";
import type { System } from "./system.ts";
import type { RunTool } from "./tools.ts";

export interface ServiceDeps extends ContainerDeps {
  readonly system: Pick<System, "configure" | "kernelRelease" | "memory" | "powerOff" | "processCount" | "uptimeMs">;
  readonly runTool: RunTool;
  readonly procDir: string;
  /** Changes with every start of the agent. */
  readonly instance: string;
}

const SIGNAL_MAX = 64;
const TERMINAL_SIDE_MAX = 0xffff;
/** The last answer must get out before the guest goes. */
const POWER_OFF_DELAY_MS = 20;

export function createHandlers(deps: ServiceDeps): Handlers {
  /** A promise from the moment that the creation begins, so that ids cannot be used twice. */
  const containers = new Map<string, Promise<GuestContainer>>();

  const findContainer = async (id: string): Promise<GuestContainer> => {
    const found = containers.get(id);
    if (found !== undefined) return await found;
    throw new BelljarError("CONTAINER_NOT_FOUND", `the guest has no container ${JSON.stringify(id.slice(0, 64))}`);
  };
  const findProcess = async (containerId: string, processId: string): Promise<GuestProcess> =>
    await (await findContainer(containerId)).process(processId);
  const checkRoomForProcess = async (): Promise<void> => {
    const settled = await Promise.allSettled(containers.values());
    checkProcessCount(settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : [])));
  };
  const removeContainer = async (id: string): Promise<void> => {
    const container = await containers.get(id)?.catch(() => undefined);
    if (container === undefined) return;
    await container.remove();
    containers.delete(id);
  };

  return {
    hello: async () => ({
      protocolVersion: PROTOCOL_VERSION,
      agentVersion: VERSION,
      kernelRelease: await deps.system.kernelRelease(),
      uptimeMs: BigInt(await deps.system.uptimeMs()),
      agentInstance: deps.instance,
    }),

    configureSandbox: async (request) => {
      await deps.system.configure(request);
      return {};
    },

    getGuestStats: async () => {
      const memory = await deps.system.memory();
      return {
        memoryTotalBytes: BigInt(memory.totalBytes),
        memoryAvailableBytes: BigInt(memory.availableBytes),
        agentResidentBytes: BigInt(process.memoryUsage.rss()),
        processes: await deps.system.processCount(),
      };
    },

    createContainer: async (request) => {
      const id = checkName(request.containerId, "container id");
      if (containers.has(id)) throw new BelljarError("CONTAINER_EXISTS", `the guest has a container ${id} already`);
      const { rootfs } = request;
      if (rootfs === undefined || rootfs.layers.length === 0 || rootfs.writable === undefined) {
        throw new BelljarError("INVALID_ARGUMENT", "a container needs at least one layer and a writable disk");
      }
      const creating = GuestContainer.create(deps, {
        id,
        spec: parseObject(request.specJson, "the configuration"),
        disks: { layers: rootfs.layers.map((layer) => layer.serial), writable: rootfs.writable.serial },
        user: request.user,
      });
      containers.set(id, creating);
      try {
        await creating;
      } catch (error) {
        containers.delete(id);
        throw error;
      }
      return {};
    },

    startContainer: async (request) => {
      const container = await findContainer(request.containerId);
      await checkRoomForProcess();
      const { pid, startedAtNs } = await container.start({
        stdin: request.stdin,
        terminalSize: checkSize(request.terminalSize),
      });
      return { pid, startedAtNs };
    },

    removeContainer: async (request) => {
      await removeContainer(request.containerId);
      return {};
    },

    execProcess: async (request) => {
      const container = await findContainer(request.containerId);
      await checkRoomForProcess();
      const { pid, startedAtNs } = await container.exec({
        processId: checkName(request.processId, "process id"),
        process: parseObject(request.processJson, "the process"),
        user: request.user,
        stdin: request.stdin,
        terminalSize: checkSize(request.terminalSize),
      });
      return { pid, startedAtNs };
    },

    signalProcess: async (request) => {
      if (request.signal < 1 || request.signal > SIGNAL_MAX) {
        throw new BelljarError("INVALID_ARGUMENT", `there is no signal ${request.signal}`);
      }
      await (await findContainer(request.containerId)).signal(request.processId, request.signal, request.all);
      return {};
    },

    waitProcess: async (request, context) => {
      const found = await findProcess(request.containerId, request.processId);
      const end = await found.waitForEnd(request.waitMs, context.signal);
      if (end === undefined) return { ended: false, startedAtNs: found.startedAtNs };
      return { ended: true, startedAtNs: found.startedAtNs, ...end };
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
      const chunk = await found
        .output(request.stream)
        .read({ ...request, offset: checkOffset(request.offset) }, context);
      return { ...chunk, offset: BigInt(chunk.offset) };
    },

    writeInput: async (request, context) => {
      const { input } = await findProcess(request.containerId, request.processId);
      const state = await input.write({ ...request, offset: checkOffset(request.offset) }, context.signal);
      return { accepted: BigInt(state.accepted), closed: state.closed };
    },

    shutdown: async () => {
      await Promise.allSettled([...containers.keys()].map(removeContainer));
      setTimeout(() => void deps.system.powerOff(), POWER_OFF_DELAY_MS);
      return {};
    },
  };
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
