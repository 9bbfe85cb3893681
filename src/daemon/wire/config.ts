/** What callers ask of sandboxes, containers and processes, to the wire and back. The runtime checks the values. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../../base/index.ts";
import {
  type ContainerConfig,
  type ContainerLimits,
  type ProcessConfig,
  type RootfsConfig,
  resolveEnvironment,
  type StorageKind,
  storageKinds,
  type TerminalSize,
} from "../../container/index.ts";
import type { api } from "../../protocol/index.ts";
import type { ContainerCreateConfig, SandboxCreateConfig } from "../../runtime/index.ts";
import { type VfioPort, vfioPorts } from "../../sandbox/index.ts";
import { fromContainerDevice } from "./devices.ts";
import { given } from "./given.ts";
import { fromKept, toKept } from "./keeping.ts";
import { fromMountSpec, toMountSpec } from "./mounts.ts";
import { fromNetworkSpec, toNetworkSpec } from "./network.ts";

const list = (values: readonly string[] | undefined): { values: string[] } | undefined =>
  values === undefined ? undefined : { values: [...values] };

const values = (wire: api.StringList | undefined): readonly string[] | undefined => wire?.values;

export function toSandboxSpec(config: SandboxCreateConfig): MessageInitShape<typeof api.SandboxSpecSchema> {
  const { dns } = config;
  return given({
    image: config.image ?? "",
    rootfs: config.rootfs === undefined ? undefined : toRootfs(config.rootfs),
    name: config.name,
    memoryMib: config.memoryMib,
    cpus: config.cpus,
    acceleration: config.acceleration,
    hostname: config.hostname,
    bootTimeoutMs: config.bootTimeoutMs,
    annotations: { ...config.annotations },
    dns:
      dns === undefined
        ? undefined
        : given({ servers: list(dns.servers), search: list(dns.search), options: list(dns.options) }),
    sharePids: config.sharePids,
    sharedMemoryBytes: config.sharedMemoryBytes,
    stopWithMain: config.stopWithMain,
    autoRemove: config.autoRemove,
    vfio: config.vfio === undefined ? undefined : given({ ...config.vfio }),
    ...(typeof config.template === "string" ? { fromTemplate: config.template } : { template: config.template }),
    templateDomain: config.templateDomain,
    ...toKept(config),
    container: config.container === undefined ? undefined : toContainerSpec(config.container),
    storageBytes: config.storageBytes,
    storage: config.storage,
    vhostUser: config.vhostUser,
    memoryMaxMib: config.memoryMaxMib,
    cpusMax: config.cpusMax,
    network: config.network === undefined ? undefined : toNetworkSpec(config.network),
  });
}

export function fromSandboxSpec(wire: api.SandboxSpec | undefined): SandboxCreateConfig {
  if (wire === undefined) throw missing("spec");
  return {
    ...fromSource(wire),
    name: wire.name,
    memoryMib: wire.memoryMib,
    cpus: wire.cpus,
    acceleration: wire.acceleration === undefined ? undefined : accelerationOf(wire.acceleration),
    hostname: wire.hostname,
    bootTimeoutMs: wire.bootTimeoutMs,
    annotations: wire.annotations,
    dns:
      wire.dns === undefined
        ? undefined
        : { servers: values(wire.dns.servers), search: values(wire.dns.search), options: values(wire.dns.options) },
    sharePids: wire.sharePids,
    sharedMemoryBytes: wire.sharedMemoryBytes,
    stopWithMain: wire.stopWithMain,
    autoRemove: wire.autoRemove,
    vfio:
      wire.vfio === undefined
        ? undefined
        : given({ coldPlug: vfioPortOf(wire.vfio.coldPlug), hotPlug: vfioPortOf(wire.vfio.hotPlug) }),
    template: wire.fromTemplate ?? wire.template,
    templateDomain: wire.templateDomain,
    ...fromKept(wire),
    container: wire.container === undefined ? undefined : fromContainerSpec(wire.container),
    storageBytes: wire.storageBytes,
    storage: wire.storage === undefined ? undefined : storageKindOf(wire.storage),
    vhostUser: wire.vhostUser,
    memoryMaxMib: wire.memoryMaxMib,
    cpusMax: wire.cpusMax,
    network: wire.network === undefined ? undefined : fromNetworkSpec(wire.network),
  };
}

export function toContainerRequest(
  sandbox: string,
  config: ContainerCreateConfig,
): MessageInitShape<typeof api.CreateContainerRequestSchema> {
  return given({
    sandbox,
    image: config.image ?? "",
    rootfs: config.rootfs === undefined ? undefined : toRootfs(config.rootfs),
    name: config.name,
    spec: toContainerSpec(config),
    storageBytes: config.storageBytes,
    storage: config.storage,
  });
}

export function fromContainerRequest(wire: api.CreateContainerRequest): ContainerCreateConfig {
  return {
    ...(wire.spec === undefined ? {} : fromContainerSpec(wire.spec)),
    ...fromSource(wire),
    name: wire.name,
    storageBytes: wire.storageBytes,
    storage: wire.storage === undefined ? undefined : storageKindOf(wire.storage),
  };
}

function toRootfs({ type, source, options }: RootfsConfig): MessageInitShape<typeof api.RootfsSpecSchema> {
  return given({ type, source, options: list(options) });
}

/** An empty name is none. */
function fromSource({ image, rootfs }: Pick<api.SandboxSpec, "image" | "rootfs">): {
  readonly image?: string;
  readonly rootfs?: RootfsConfig;
} {
  return {
    ...(image === "" ? {} : { image }),
    ...(rootfs === undefined
      ? {}
      : { rootfs: { type: rootfs.type, source: rootfs.source, options: values(rootfs.options) } }),
  };
}

function toContainerSpec(config: ContainerConfig): MessageInitShape<typeof api.ContainerSpecSchema> {
  return given({
    process: toProcessSpec(config),
    entrypoint: list(config.entrypoint),
    readOnly: config.readOnly,
    stdin: config.stdin,
    keepAlive: config.keepAlive,
    stopSignal: config.stopSignal,
    limits: config.limits === undefined ? undefined : toLimits(config.limits),
    securityOptions: list(config.securityOptions),
    seccompProfile: config.seccompProfile,
    pidsLimit: config.pidsLimit,
    shmBytes: config.shmBytes,
    tmpfs: list(config.tmpfs),
    mounts: config.mounts?.map(toMountSpec),
    devices: config.devices?.map((device) => given({ ...device })),
    rlimits: config.rlimits?.map((each) => ({ ...each })),
    annotations: { ...config.annotations },
    pciDevices: list(config.pciDevices),
  });
}

function fromContainerSpec(wire: api.ContainerSpec): ContainerConfig {
  return {
    ...fromProcessSpec(wire.process),
    entrypoint: values(wire.entrypoint),
    readOnly: wire.readOnly,
    stdin: wire.stdin,
    keepAlive: wire.keepAlive,
    stopSignal: wire.stopSignal,
    limits: wire.limits === undefined ? undefined : fromLimits(wire.limits),
    securityOptions: values(wire.securityOptions),
    seccompProfile: wire.seccompProfile,
    pidsLimit: wire.pidsLimit,
    shmBytes: wire.shmBytes,
    tmpfs: values(wire.tmpfs),
    mounts: wire.mounts.length === 0 ? undefined : wire.mounts.map(fromMountSpec),
    devices: wire.devices.length === 0 ? undefined : wire.devices.map(fromContainerDevice),
    rlimits: wire.rlimits.length === 0 ? undefined : wire.rlimits,
    annotations: wire.annotations,
    pciDevices: values(wire.pciDevices),
  };
}

/** What `K` alone stands for is looked up here: the caller's environment does not leave its process. */
export function toProcessSpec(config: ProcessConfig): MessageInitShape<typeof api.ProcessSpecSchema> {
  return given({
    command: list(config.command),
    env: list(resolveEnvironment(config)),
    workingDir: config.workingDir,
    user: config.user,
    tty: config.tty,
    capAdd: list(config.capAdd),
    capDrop: list(config.capDrop),
  });
}

export function fromProcessSpec(wire: api.ProcessSpec | undefined): ProcessConfig {
  return {
    command: values(wire?.command),
    env: values(wire?.env),
    workingDir: wire?.workingDir,
    user: wire?.user,
    tty: wire?.tty,
    capAdd: values(wire?.capAdd),
    capDrop: values(wire?.capDrop),
  };
}

export function toLimits(limits: ContainerLimits): MessageInitShape<typeof api.ContainerLimitsSchema> {
  return given({
    memoryBytes: limits.memoryBytes,
    cpus: limits.cpus,
    cpuWeight: limits.cpuWeight,
    cpuset: limits.cpuset,
    pids: limits.pids,
  });
}

export function fromLimits(wire: api.ContainerLimits): ContainerLimits {
  return given({
    memoryBytes: wire.memoryBytes,
    cpus: wire.cpus,
    cpuWeight: wire.cpuWeight,
    cpuset: wire.cpuset,
    pids: wire.pids,
  });
}

export function fromTerminalSize(wire: api.TerminalSize | undefined): TerminalSize | undefined {
  return wire === undefined ? undefined : { columns: wire.columns, rows: wire.rows };
}

function accelerationOf(word: string): "auto" | "kvm" | "tcg" {
  if (word === "auto" || word === "kvm" || word === "tcg") return word;
  throw new BelljarError("INVALID_ARGUMENT", `acceleration ${JSON.stringify(word)} is not auto, kvm or tcg`);
}

export function storageKindOf(word: string): StorageKind {
  const found = storageKinds.find((kind) => kind === word);
  if (found !== undefined) return found;
  throw new BelljarError("INVALID_ARGUMENT", `storage ${JSON.stringify(word)} is not ${storageKinds.join(" or ")}`);
}

function vfioPortOf(word: string | undefined): VfioPort | undefined {
  const port = vfioPorts.find((each) => each === word);
  if (port !== undefined || word === undefined) return port;
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(word)} is not one of ${vfioPorts.join(", ")}`);
}

export function missing(field: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `the request has no ${field}`, { facts: { field } });
}
