/** Containers over the API: each call is one of the runtime. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { api } from "../../protocol/index.ts";
import type { ContainerHandle, ProcessHandle, Sandboxes } from "../../runtime/index.ts";
import type { Calls } from "../calls.ts";
import { fromContainerRequest, fromLimits, fromProcessSpec, fromTerminalSize } from "../wire/config.ts";
import { toContainerInfo, toProcessInfo, toStatus } from "../wire/info.ts";
import { toContainerStats } from "../wire/stats.ts";

export function containerService(sandboxes: Sandboxes, calls: Calls): ServiceImpl<typeof api.ContainerService> {
  const find = (ref: api.ContainerRef | undefined): Promise<ContainerHandle> => findContainer(sandboxes, ref);
  return {
    createContainer: async (request, { signal }) => {
      const sandbox = await sandboxes.get(request.sandbox);
      const container = await sandbox.containers.create(fromContainerRequest(request), { signal });
      return { container: toContainerInfo(await container.info()) };
    },
    getContainer: async (request) => {
      const container = await find(request.container);
      return { sandboxId: container.sandboxId, container: toContainerInfo(await container.info()) };
    },
    startContainer: async (request, { signal }) => {
      const container = await find(request.container);
      await container.start({ signal, terminalSize: fromTerminalSize(request.terminalSize) });
      return {};
    },
    stopContainer: async ({ container, timeoutMs, force }, { signal }) => {
      await (await find(container)).stop({ signal, timeoutMs, force });
      return {};
    },
    killContainer: async ({ container, number, all }, { signal }) => {
      await (await find(container)).kill({ signal, number, all });
      return {};
    },
    pauseContainer: async ({ container }) => {
      await (await find(container)).pause();
      return {};
    },
    resumeContainer: async ({ container }) => {
      await (await find(container)).resume();
      return {};
    },
    deleteContainer: async ({ container, force }, { signal }) => {
      await (await find(container)).delete({ signal, force });
      return {};
    },
    updateContainer: async ({ container, limits }) => {
      await (await find(container)).update(limits === undefined ? {} : fromLimits(limits));
      return {};
    },
    growStorage: async ({ container, sizeBytes }) => {
      await (await find(container)).growStorage(sizeBytes);
      return {};
    },
    getContainerStats: async ({ container }) => ({ stats: toContainerStats(await (await find(container)).stats()) }),
    waitContainer: async ({ container }, context) => {
      const found = await find(container);
      return { status: toStatus(await found.wait({ signal: calls.waiting(context) })) };
    },
    readLogs: async function* ({ container, follow, sinceMs, tailLines }, context) {
      const found = await find(container);
      const options = { follow, sinceMs, tailLines, signal: calls.waiting(context) };
      for await (const record of found.logs(options)) yield { ...record };
    },
    attachContainer: async ({ container }) => ({ process: toFacts(await (await find(container)).attach()) }),
    spawnProcess: async ({ container, spec, stdin, terminalSize }, { signal }) => {
      const found = await find(container);
      const { command = [], workingDir: cwd, ...config } = fromProcessSpec(spec);
      // The call ends when it has been answered; the process goes on.
      const call = { signal, endOnAbort: false };
      const options = { ...config, ...call, cwd, stdin, terminalSize: fromTerminalSize(terminalSize) };
      return { process: toFacts(await found.spawn(command, options)) };
    },
    listProcesses: async ({ container }) => ({
      processes: (await (await find(container)).processes()).map(toProcessInfo),
    }),
  };
}

/** An empty container, or none, is the sandbox's first one. */
export async function findContainer(
  sandboxes: Sandboxes,
  ref: { readonly sandbox: string; readonly container: string } | undefined,
): Promise<ContainerHandle> {
  const sandbox = await sandboxes.get(ref?.sandbox ?? "");
  const container = ref?.container ?? "";
  return container === "" ? sandbox.main : await sandbox.containers.get(container);
}

export function toFacts(process: ProcessHandle): MessageInitShape<typeof api.ProcessFactsSchema> {
  const { containerId, id, pid, tty } = process;
  return { containerId, processId: id, pid, tty };
}
