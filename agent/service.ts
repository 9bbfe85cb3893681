/** The agent's methods: checks what the host asks, and hands it to the container, process or system that it is about. */
import { VERSION } from "../src/base/version.ts";
import type { ConfigureNetworkRequest, ConfigureSandboxRequest } from "../src/protocol/index.ts";
import { PROTOCOL_VERSION } from "../src/protocol/version.ts";
import { ContainerTable } from "./container-table.ts";
import type { Handlers } from "./methods.ts";
import { configureNetwork } from "./network.ts";
import { readInterfaces, readRoutes } from "./network-table.ts";
import { findPlugged } from "./plugged-devices.ts";
import { containerHandlers } from "./service-containers.ts";
import type { ServiceDeps } from "./service-deps.ts";
import { fileHandlers } from "./service-files.ts";
import { processHandlers } from "./service-processes.ts";
import { Standstill } from "./standstill.ts";

/** The last answer must get out before the guest goes. */
const POWER_OFF_DELAY_MS = 20;

export function createHandlers(deps: ServiceDeps): Handlers {
  const containers = new ContainerTable(deps.processesMax);
  const standstill = new Standstill(deps, containers);
  return {
    ...sandboxHandlers(deps, containers, standstill),
    ...containerHandlers(deps, containers),
    ...processHandlers(deps, containers, standstill),
    ...fileHandlers(containers),
  };
}

type SandboxHandlers = Pick<
  Handlers,
  | "configureNetwork"
  | "configureSandbox"
  | "findDevice"
  | "fitResources"
  | "freeze"
  | "getGuestStats"
  | "getNetwork"
  | "hello"
  | "rehearse"
  | "shutdown"
  | "thaw"
>;

function sandboxHandlers(deps: ServiceDeps, containers: ContainerTable, standstill: Standstill): SandboxHandlers {
  const configureSandbox = async (request: ConfigureSandboxRequest): Promise<void> => {
    await deps.system.configure(request);
    // With the random numbers that the kernel has by now.
    deps.identity.introduce(request.sandboxId);
    const renamed = deps.names.configure(
      request.hostname,
      request.dnsLines,
      request.replaceHosts ? request.hostLines : undefined,
    );
    if (request.sharedMemoryBytes > 0n) await deps.sharedMemory.resize(request.sharedMemoryBytes);
    if (renamed) for (const container of await containers.all()) await container.refreshNames();
  };
  const configureNetworkOf = (request: ConfigureNetworkRequest): Promise<void> =>
    configureNetwork({ ...deps.plugged, procDir: deps.procDir, disconnect: deps.disconnect }, request);
  return {
    hello: async () => ({
      protocolVersion: PROTOCOL_VERSION,
      agentVersion: VERSION,
      kernelRelease: await deps.system.kernelRelease(),
      uptimeMs: BigInt(await deps.system.uptimeMs()),
      agentInstance: deps.instance,
      thawConfigures: true,
      rehearses: true,
      preparesProcesses: true,
    }),

    configureSandbox: async (request) => {
      await configureSandbox(request);
      return { realtimeNs: deps.system.realtimeNs() };
    },

    freeze: async ({ saving }, { signal }) => {
      const { failures, wake } = await standstill.freeze(saving, signal);
      if (wake === undefined) return { hookFailures: [...failures] };
      const { files, furtherPids, thaw, interfaces = [], disconnects = false, rest } = wake;
      const present = interfaces.map((each) => ({ ...each, addresses: [...each.addresses] }));
      const plan = { files: [...files], furtherPids: [...furtherPids], thaw, interfaces: present, disconnects, rest };
      return { hookFailures: [...failures], wake: plan };
    },

    thaw: async ({ sandbox, network, event, sandboxId, generation, machineId, bootId, endProcesses, toldAtMs }) => {
      const told = toldAtMs === 0n ? {} : { toldAtMs: Number(toldAtMs) };
      const news = { event, sandboxId, generation, machineId, bootId, endProcesses, ...told };
      const hookFailures = await standstill.thaw(news, async () => {
        if (sandbox !== undefined) await configureSandbox(sandbox);
        if (network !== undefined) await configureNetworkOf(network);
      });
      return { hookFailures: [...hookFailures], realtimeNs: deps.system.realtimeNs() };
    },

    rehearse: async ({ over }, { signal }) => {
      await standstill.rehearse(over, signal);
      return {};
    },

    configureNetwork: async (request) => {
      await configureNetworkOf(request);
      return {};
    },

    getNetwork: async () => {
      const where = { sysDir: deps.plugged.sysDir, procDir: deps.procDir };
      const interfaces = (await readInterfaces(where)).map((each) => ({ ...each, addresses: [...each.addresses] }));
      return { interfaces, routes: await readRoutes(where) };
    },

    fitResources: async ({ cpus, pluggedMemoryBytes, ahead }) => {
      const vm = { cpus, pluggedBytes: Number(pluggedMemoryBytes) };
      const now = ahead ? await deps.capacity.makeRoom(vm) : await deps.capacity.fit(vm);
      return { cpus: now.cpus, pluggedMemoryBytes: BigInt(now.pluggedBytes) };
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

    findDevice: async ({ disk, pci, modules, unused, noNodes }) => {
      const device = { serial: disk?.serial, pci: pci?.path, modules, unused, noNodes };
      const nodes = await findPlugged(deps.plugged, device);
      return { nodes: nodes.map(({ name, type, major, minor }) => ({ name, block: type === "b", major, minor })) };
    },

    shutdown: async () => {
      await Promise.allSettled((await containers.all()).map((container) => containers.remove(container.id)));
      setTimeout(() => void deps.system.powerOff(), POWER_OFF_DELAY_MS);
      return {};
    },
  };
}
