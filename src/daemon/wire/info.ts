/** What is told of sandboxes, containers and processes, to the wire and back. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  BelljarError,
  type EndCause,
  type LifecycleState,
  lifecycleStates,
  type ShownState,
} from "../../base/index.ts";
import type { ProcessStatus } from "../../container/index.ts";
import type { api } from "../../protocol/index.ts";
import type {
  ContainerInfo,
  ProcessInfo,
  RuntimeEvent,
  SandboxEvent,
  SandboxInfo,
  SandboxResourcesInfo,
} from "../../runtime/index.ts";
import { fromLimits, storageKindOf, toLimits } from "./config.ts";
import { fromDeviceInfo, toDeviceInfo } from "./devices.ts";
import { given } from "./given.ts";
import { fromKeptInfo, toKeptInfo } from "./keeping.ts";
import { fromMountInfo, toMountInfo } from "./mounts.ts";
import { fromHibernationInfo, fromNetworkInfo, toHibernationInfo, toNetworkInfo } from "./network.ts";

export function toSandboxInfo(info: SandboxInfo): MessageInitShape<typeof api.SandboxInfoSchema> {
  return given({
    ...info,
    annotations: { ...info.annotations },
    containers: info.containers.map(toContainerInfo),
    devices: info.devices.map(toDeviceInfo),
    vmm: info.vmm === undefined ? undefined : given({ ...info.vmm }),
    resources:
      info.resources === undefined ? undefined : given({ ...info.resources, cgroups: [...info.resources.cgroups] }),
    network: info.network === undefined ? undefined : toNetworkInfo(info.network),
    hibernation: info.hibernation === undefined ? undefined : toHibernationInfo(info.hibernation),
    ...toKeptInfo(info),
    end: info.end === undefined ? undefined : { ...info.end },
  });
}

export function fromSandboxInfo(wire: api.SandboxInfo | undefined): SandboxInfo {
  if (wire === undefined) throw incomplete("sandbox");
  return {
    id: wire.id,
    name: wire.name,
    state: shownStateOf(wire.state),
    hibernation: wire.hibernation === undefined ? undefined : fromHibernationInfo(wire.hibernation),
    ...fromKeptInfo(wire),
    image: wire.image,
    createdAtMs: wire.createdAtMs,
    memoryMib: wire.memoryMib,
    cpus: wire.cpus,
    resources: wire.resources === undefined ? undefined : fromResources(wire.resources),
    hostname: wire.hostname,
    annotations: wire.annotations,
    containers: wire.containers.map((each) => fromContainerInfo(each)),
    devices: wire.devices.map(fromDeviceInfo),
    vmm:
      wire.vmm === undefined
        ? undefined
        : {
            pid: wire.vmm.pid,
            acceleration: wire.vmm.acceleration === "kvm" ? "kvm" : "tcg",
            ...(wire.vmm.template === undefined ? {} : { template: wire.vmm.template }),
          },
    ...(wire.network === undefined ? {} : { network: fromNetworkInfo(wire.network) }),
    generation: wire.generation,
    checkpoints: wire.checkpoints,
    end: fromEnd(wire.end),
    problem: wire.problem,
  };
}

function fromResources(wire: api.SandboxResourcesInfo): SandboxResourcesInfo {
  const { memoryAskedMib, cpusAsked, memoryMaxMib, cpusMax, sharedMemoryBytes, cgroups } = wire;
  return { memoryAskedMib, cpusAsked, memoryMaxMib, cpusMax, sharedMemoryBytes, cgroups };
}

export function toContainerInfo(info: ContainerInfo): MessageInitShape<typeof api.ContainerInfoSchema> {
  return given({
    ...info,
    command: [...info.command],
    annotations: { ...info.annotations },
    limits: toLimits(info.limits),
    mounts: info.mounts.map(toMountInfo),
    storage: info.storage === undefined ? undefined : given({ ...info.storage }),
    status: info.status === undefined ? undefined : toStatus(info.status),
    end: info.end === undefined ? undefined : { ...info.end },
  });
}

export function fromContainerInfo(wire: api.ContainerInfo | undefined): ContainerInfo {
  if (wire === undefined) throw incomplete("container");
  return {
    id: wire.id,
    name: wire.name,
    state: stateOf(wire.state),
    image: wire.image,
    command: wire.command,
    createdAtMs: wire.createdAtMs,
    startedAtMs: wire.startedAtMs,
    pid: wire.pid,
    tty: wire.tty,
    stdin: wire.stdin,
    annotations: wire.annotations,
    limits: wire.limits === undefined ? {} : fromLimits(wire.limits),
    mounts: wire.mounts.map(fromMountInfo),
    storage: wire.storage === undefined ? undefined : fromStorage(wire.storage),
    status: fromStatus(wire.status),
    end: fromEnd(wire.end),
  };
}

function fromStorage({ kind, sizeBytes, growingToBytes }: api.StorageState): NonNullable<ContainerInfo["storage"]> {
  return { kind: storageKindOf(kind), sizeBytes, ...(growingToBytes === undefined ? {} : { growingToBytes }) };
}

export function toProcessInfo(info: ProcessInfo): MessageInitShape<typeof api.ProcessInfoSchema> {
  return given({ ...info, status: info.status === undefined ? undefined : toStatus(info.status) });
}

export function fromProcessInfo(wire: api.ProcessInfo): ProcessInfo {
  const { id, pid, startedAtMs, tty } = wire;
  return { id, pid, startedAtMs, tty, status: fromStatus(wire.status) };
}

export function toStatus(status: ProcessStatus): MessageInitShape<typeof api.ProcessStatusSchema> {
  return given({ ...status });
}

export function fromStatus(wire: api.ProcessStatus | undefined): ProcessStatus | undefined {
  if (wire === undefined) return undefined;
  const { exitCode, oomKilled, startedAtMs, exitedAtMs } = wire;
  return { exitCode, signal: wire.signal, oomKilled, startedAtMs, exitedAtMs, launchError: wire.launchError };
}

export function toEvent(event: SandboxEvent): MessageInitShape<typeof api.WatchSandboxResponseSchema> {
  const { atMs } = event;
  switch (event.kind) {
    case "state":
      return { atMs, event: { case: "state", value: event.state } };
    case "container":
      return { atMs, event: { case: "container", value: { containerId: event.containerId, state: event.state } } };
    case "failed":
      return { atMs, event: { case: "failure", value: { part: event.part, message: event.message } } };
    case "denied":
      return { atMs, event: { case: "denied", value: { packets: event.packets } } };
    case "deleted":
      return { atMs, event: { case: "deleted", value: {} } };
    case "created":
      return { atMs, event: { case: "created", value: { image: event.image } } };
    case "renamed":
      return { atMs, event: { case: "renamed", value: { oldName: event.oldName } } };
  }
}

export function fromEvent(wire: api.WatchSandboxResponse): SandboxEvent {
  const { atMs, event } = wire;
  switch (event.case) {
    case "state":
      return { kind: "state", atMs, state: shownStateOf(event.value) };
    case "container":
      return { kind: "container", atMs, containerId: event.value.containerId, state: stateOf(event.value.state) };
    case "failure":
      return {
        kind: "failed",
        atMs,
        part: event.value.part === "agent" ? "agent" : "vmm",
        message: event.value.message,
      };
    case "denied":
      return { kind: "denied", atMs, packets: event.value.packets };
    case "deleted":
      return { kind: "deleted", atMs };
    case "created":
      return { kind: "created", atMs, image: event.value.image };
    case "renamed":
      return { kind: "renamed", atMs, oldName: event.value.oldName };
    case undefined:
      throw incomplete("event");
  }
}

export function toRuntimeEvent(event: RuntimeEvent): MessageInitShape<typeof api.WatchEventsResponseSchema> {
  const { number, sandboxId, sandboxName } = event;
  return { number, sandboxId, sandboxName, event: toEvent(event) };
}

/** Undefined for an answer that only says where events begin. */
export function fromRuntimeEvent(wire: api.WatchEventsResponse): RuntimeEvent | undefined {
  const { number, sandboxId, sandboxName, event } = wire;
  if (event === undefined) return undefined;
  return { ...fromEvent(event), number, sandboxId, sandboxName };
}

function fromEnd(wire: api.EndCause | undefined): EndCause | undefined {
  return wire === undefined ? undefined : { reason: wire.reason, message: wire.message, atMs: wire.atMs };
}

function shownStateOf(word: string): ShownState {
  return word === "hibernated" ? word : stateOf(word);
}

function stateOf(word: string): LifecycleState {
  const found = lifecycleStates.find((state) => state === word);
  if (found === undefined) throw new BelljarError("INTERNAL", `the daemon told of a state ${JSON.stringify(word)}`);
  return found;
}

/** An answer of a daemon of another version, or of something that is none. */
export function incomplete(part: string): BelljarError {
  return new BelljarError("INTERNAL", `the daemon's answer has no ${part}`);
}
