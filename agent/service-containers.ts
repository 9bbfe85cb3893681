/** Methods about containers as a whole. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../src/base/errors.ts";
import { checkName } from "../src/base/ids.ts";
import { type ContainerStatusSchema, type GuestMount, ContainerPhase as Phase } from "../src/protocol/index.ts";
import { parseNetwork } from "./cgroup-stats.ts";
import { type ContainerPhase, GuestContainer } from "./container.ts";
import type { MountRequest } from "./container-place.ts";
import type { ContainerTable } from "./container-table.ts";
import type { Handlers } from "./methods.ts";
import { rootfsDisks } from "./rootfs-disks.ts";
import type { ServiceDeps } from "./service-deps.ts";
import { endMessage } from "./service-processes.ts";
import { parseObject } from "./spec.ts";

type ContainerHandlers = Pick<
  Handlers,
  | "copyIn"
  | "createContainer"
  | "getContainerStats"
  | "growStorage"
  | "listContainers"
  | "pauseContainer"
  | "removeContainer"
  | "resumeContainer"
  | "updateContainer"
>;

const PHASES: { readonly [phase in ContainerPhase]: Phase } = {
  ready: Phase.READY,
  running: Phase.RUNNING,
  paused: Phase.PAUSED,
  stopped: Phase.STOPPED,
};

export function containerHandlers(deps: ServiceDeps, containers: ContainerTable): ContainerHandlers {
  return {
    createContainer: async (request) => {
      const id = checkName(request.containerId, "container id");
      const options = {
        id,
        spec: parseObject(request.specJson, "the configuration"),
        disks: rootfsDisks(request.rootfs),
        user: request.user,
        shareMemory: request.shareMemory,
        sharePids: request.sharePids,
        keepAlive: request.keepAlive,
        swap: request.swap?.serial,
        swappiness: request.swappiness,
        devices: request.devices.map(({ disk, path, access }) => ({ serial: disk?.serial, path, access })),
        pciDevices: request.pciDevices.map(({ path }) => path),
        mounts: request.mounts.map(mountRequest),
      };
      await containers.add(id, () => GuestContainer.create(deps, options));
      return {};
    },

    removeContainer: async (request) => {
      await containers.remove(request.containerId);
      return {};
    },

    listContainers: async () => ({ containers: await Promise.all((await containers.all()).map(statusOf)) }),

    copyIn: async (request) => {
      await (await containers.get(request.containerId)).copyIn(request.key, request.entries);
      return {};
    },

    pauseContainer: async (request) => {
      await (await containers.get(request.containerId)).pause();
      return {};
    },

    resumeContainer: async (request) => {
      await (await containers.get(request.containerId)).resume();
      return {};
    },

    updateContainer: async (request) => {
      await (await containers.get(request.containerId)).update(request);
      return {};
    },

    growStorage: async (request) => {
      await (await containers.get(request.containerId)).growStorage(Number(request.sizeBytes));
      return {};
    },

    getContainerStats: async (request) => {
      const stats = await (await containers.get(request.containerId)).stats();
      return { ...stats, network: parseNetwork(await deps.system.networkDevices()) };
    },
  };
}

/** @throws BelljarError `INVALID_ARGUMENT` */
function mountRequest({ key, from }: GuestMount): MountRequest {
  switch (from.case) {
    case "disk": {
      const { serial, fileSystem, options, readOnly, directory, copyUpFrom, fsGroup, fsGroupAlways } = from.value;
      return {
        key,
        from: { disk: { serial, fileSystem, options, readOnly, directory, copyUpFrom, fsGroup, fsGroupAlways } },
      };
    }
    case "copy":
      return { key, from: { copy: { isFile: from.value.isFile } } };
    case "live":
      return { key, from: { live: { tag: from.value.tag, readOnly: from.value.readOnly, isFile: from.value.isFile } } };
    default:
      throw new BelljarError("INVALID_ARGUMENT", "a mount is of a kind that this agent does not know");
  }
}

/** Waits for starts under way: what is told then is settled. */
async function statusOf(container: GuestContainer): Promise<MessageInitShape<typeof ContainerStatusSchema>> {
  const processes = (await container.processes.all()).map(([processId, process]) => ({
    processId,
    pid: process.pid,
    startedAtNs: process.startedAtNs,
    terminal: process.terminal,
    stdin: process.stdin,
    end: endMessage(process),
  }));
  return { containerId: container.id, phase: PHASES[container.phase], processes };
}
