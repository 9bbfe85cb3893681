/** What callers are told of sandboxes and containers: pure functions of the state. */
import { basename, dirname } from "node:path";
import { BelljarError, type EndCause, type ErrorReason, errorReasons } from "../base/index.ts";
import { type ContainerState, commandLine, mountInfo, sizeFor, storageOf } from "../container/index.ts";
import { type DeviceState, titleOf } from "../devices/index.ts";
import type { VmSize, VmState } from "../hypervisor/interface.ts";
import { type NetworkState, networkPath } from "../network/index.ts";
import { maxSize, type SandboxState } from "../sandbox/index.ts";
import type {
  ContainerInfo,
  DeviceInfo,
  HibernationInfo,
  NetworkInfo,
  SandboxInfo,
  SandboxResourcesInfo,
} from "./interface.ts";
import { shownState } from "./state-moves.ts";

/** In states of older versions the template's own file is named, which lies in a directory of the digest's name. */
function templateDirectory(path: string): string | undefined {
  const name = basename(dirname(path));
  return /^[0-9a-f]{64}$/.test(name) ? name : undefined;
}

function templateOf({ memoryFile }: VmState): string | undefined {
  if (memoryFile?.use !== "private") return undefined;
  return memoryFile.template ?? templateDirectory(memoryFile.path);
}

export function sandboxInfo(state: SandboxState<ContainerState>, problem: string | undefined): SandboxInfo {
  const { id, name, image, createdAtMs, settings, annotations, vm, generation, checkpoints = 0, end } = state;
  const { memoryMib, cpus } = vm === undefined ? settings : actualSize(vm);
  return {
    id,
    name,
    state: shownState(state),
    hibernation: hibernationInfo(state),
    idleTimeoutMs: settings.idleTimeoutMs,
    trail: settings.trail,
    restart: settings.restart === undefined ? undefined : { ...settings.restart, ...(state.restarts ?? { count: 0 }) },
    image,
    createdAtMs,
    memoryMib,
    cpus,
    resources: resourcesInfo(state),
    hostname: settings.hostname,
    annotations,
    containers: state.containers.map(containerInfo),
    devices: (state.devices ?? []).map(deviceInfo),
    vmm: vm === undefined ? undefined : { pid: vm.vmm.pid, acceleration: vm.acceleration, template: templateOf(vm) },
    network: state.network === undefined ? undefined : networkInfo(state.network),
    generation,
    checkpoints,
    end,
    problem,
  };
}

function hibernationInfo({ hibernation, state }: SandboxState<ContainerState>): HibernationInfo | undefined {
  if (hibernation === undefined || state !== "paused") return undefined;
  return { sinceMs: hibernation.sinceMs, ports: hibernation.ports };
}

function networkInfo(network: NetworkState): NetworkInfo {
  const namespace = networkPath(network);
  if (network.mode !== "netns") {
    const { mode, macAddress, address, ports } = network;
    return { mode, namespace, macAddress, addresses: [address], ports };
  }
  const { mode, endpoints } = network;
  return {
    mode,
    namespace,
    macAddress: endpoints[0]?.macAddress ?? "",
    addresses: endpoints.flatMap(({ addresses }) => addresses.map((text) => text.replace(/\/.*/, ""))),
    interfaces: endpoints.map(({ name, source, kind, macAddress, mtu, addresses }) => ({
      name,
      source,
      kind,
      macAddress,
      mtu,
      addresses,
    })),
    ports: [],
  };
}

function actualSize({ memoryMib, cpus, pluggedMemoryMib = 0, pluggedCpus = 0 }: VmState): VmSize {
  return { memoryMib: memoryMib + pluggedMemoryMib, cpus: cpus + pluggedCpus };
}

function resourcesInfo({
  settings,
  vm,
  state,
  containers,
  cgroups,
}: SandboxState<ContainerState>): SandboxResourcesInfo {
  const { memoryMaxMib = vm?.memoryMib, cpusMax = vm?.cpus } = vm ?? {};
  const most = maxSize(settings);
  const max = { memoryMib: memoryMaxMib ?? most.memoryMib, cpus: cpusMax ?? most.cpus };
  const counted = containers.filter((each) => state === "stopped" || each.state !== "stopped");
  const asked = sizeFor(
    settings,
    max,
    counted.map(({ limits }) => limits),
  );
  const { sharedMemoryBytes } = settings;
  return {
    memoryAskedMib: asked.memoryMib,
    cpusAsked: asked.cpus,
    memoryMaxMib: max.memoryMib,
    cpusMax: max.cpus,
    sharedMemoryBytes,
    cgroups: vm === undefined ? [] : (cgroups ?? []),
  };
}

/** Of a sandbox whose state cannot be read. */
export function unreadableInfo(id: string, problem: BelljarError): SandboxInfo {
  return {
    id,
    name: id,
    state: "stopped",
    image: "",
    createdAtMs: 0,
    memoryMib: 0,
    cpus: 0,
    hostname: "",
    annotations: {},
    containers: [],
    devices: [],
    generation: 0,
    checkpoints: 0,
    problem: problem.message,
  };
}

export function deviceInfo(device: DeviceState): DeviceInfo {
  const { id, config, phase, references, attachments, nodes, isContainers, backEnd } = device;
  return {
    id,
    kind: config.kind,
    source: titleOf(config),
    readOnly: "readOnly" in config && config.readOnly === true,
    state: phase,
    references: references.length,
    attachments,
    nodes: nodes.map(({ name }) => `/dev/${name}`),
    isContainers,
    backEndPid: backEnd?.pid,
  };
}

export function containerInfo(container: ContainerState): ContainerInfo {
  const { id, name, state, image, config, createdAtMs, startedAtMs, pid, limits, status, end } = container;
  return {
    id,
    name,
    state,
    image,
    command: config.keepAlive === true ? [] : commandLine(container.imageConfig, config),
    createdAtMs,
    startedAtMs,
    pid,
    tty: config.tty === true,
    stdin: config.stdin === true,
    annotations: config.annotations ?? {},
    limits,
    mounts: (container.mounts ?? []).map(mountInfo),
    storage: storageOf(container),
    status,
    end,
  };
}

/** The error for whoever needs what has ended. */
export function endedError(what: string, end: EndCause | undefined): BelljarError {
  if (end === undefined) return new BelljarError("INVALID_TRANSITION", `${what} has not been started`);
  return new BelljarError(isReason(end.reason) ? end.reason : "INTERNAL", end.message);
}

function isReason(word: string): word is ErrorReason {
  return Object.hasOwn(errorReasons, word);
}
