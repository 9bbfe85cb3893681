/**
 * What a sandbox leaves on disk: all that another process needs to take it over, and, in `pending`, what its last owner was
 * about to do. Intent and state stand in one file, so that one durable write changes both.
 *
 * The containers' part belongs to the folder above, which hands its decoder in.
 */
import {
  type Decode,
  deviceLimits,
  type EndCause,
  type Field,
  isId,
  type LifecycleState,
  lifecycleStates,
  resourceLimits,
  sandboxLimits,
  vmmLimits,
} from "../base/index.ts";
import { type DeviceState, decodeDeviceState } from "../devices/index.ts";
import { decodeDeviceConfig, decodeDiskConfig, decodeVmState } from "../hypervisor/index.ts";
import type { DiskConfig, VmState } from "../hypervisor/interface.ts";
import { decodeNetworkSettings, decodeNetworkState, type NetworkState } from "../network/index.ts";
import type { PlannedWake } from "../protocol/index.ts";
import { decodeCgroup } from "../resources/index.ts";
import type { StateSchema } from "../store/index.ts";
import type { SandboxSettings } from "./config.ts";
import type { GuestNamed } from "./guest-ids.ts";
import { decodeHibernation, type HibernationState } from "./hibernation.ts";
import { decodeVfioSettings } from "./pci-devices.ts";
import { decodeRestart, decodeRestartState, type RestartState } from "./restart.ts";
import { decodeReturning, decodeWakePlan, type ReturningState } from "./returning.ts";
import { decodeTrail } from "./trail.ts";

export const sandboxIntents = [
  "create",
  "start",
  "stop",
  "pause",
  "resume",
  "delete",
  "resize",
  "checkpoint",
  "hibernate",
  "wake",
  "rewind",
] as const;
export type SandboxIntent = (typeof sandboxIntents)[number];

/** An operation of several steps that is under way: written before the first, cleared together with the result. */
export interface Pending<Operation extends string> {
  readonly operation: Operation;
  readonly sinceMs: number;
}

/** What this folder knows of a container. */
export interface SandboxedContainer extends GuestNamed {
  readonly name: string;
  readonly state: LifecycleState;
  /** The agent has it: its disks are plugged, its root file system is mounted. */
  readonly inGuest: boolean;
  readonly disks: readonly DiskConfig[];
}

export interface SandboxState<C extends SandboxedContainer> {
  readonly id: string;
  readonly name: string;
  /** Milliseconds since the epoch. */
  readonly createdAtMs: number;
  /** Name of the image of the first container. */
  readonly image: string;
  /** Directory of its sockets. */
  readonly runDir: string;
  readonly settings: SandboxSettings;
  readonly annotations: Readonly<Record<string, string>>;
  readonly state: LifecycleState;
  readonly pending?: Pending<SandboxIntent> | undefined;
  /** Digest of the guest image that it boots, now and after every stop. */
  readonly guestImage: string;
  /** Directories of the VMM's control group on the host: planned before there is a VM, gone with it. */
  readonly cgroups?: readonly string[] | undefined;
  /** What of its network there is on the host: planned before it is made, gone with it. */
  readonly network?: NetworkState | undefined;
  /** Present while it has a VM. */
  readonly vm?: VmState | undefined;
  /** Which start of the agent the containers' processes belong to; absent until it has answered. */
  readonly agentInstance?: string | undefined;
  /** Why it stopped. */
  readonly end?: EndCause | undefined;
  /** It was paused with its containers frozen in the guest: a copy of it comes to itself before they run on. */
  readonly workloadFrozen?: boolean | undefined;
  /** It is a copy that runs, and whose agent was not told so yet. */
  readonly returning?: ReturningState | undefined;
  /** Of one that was saved while it stood still: what the guest's wake program does in a copy. */
  readonly wake?: PlannedWake | undefined;
  /** Its VM was let go, or is about to be: it goes on from here. */
  readonly hibernation?: HibernationState | undefined;
  readonly restarts?: RestartState | undefined;
  /** Somebody wanted it stopped: that is no failure, whatever its processes say. */
  readonly stopAsked?: boolean | undefined;
  /** How many times it was restored or forked. */
  readonly generation: number;
  /** How many times it was saved, or tried to be, together with those that it came from; none when absent. */
  readonly checkpoints?: number | undefined;
  /** What is plugged in, and who has it; absent when there is nothing. */
  readonly devices?: readonly DeviceState[] | undefined;
  /** The oldest first; the first one is the sandbox's main container. */
  readonly containers: readonly C[];
}

/** It has stopped, whoever stopped it had finished, and nothing of it is left but its record, disks and logs: an owner has nothing to find out. */
export function isAtRest<C extends SandboxedContainer>(state: SandboxState<C>): boolean {
  const { pending, vm, hibernation, network, cgroups, agentInstance } = state;
  const traces = [pending, vm, hibernation, network, cgroups, agentInstance];
  return (
    state.state === "stopped" &&
    traces.every((trace) => trace === undefined) &&
    state.containers.every((container) => container.state === "stopped")
  );
}

export function sandboxStateSchema<C extends SandboxedContainer>(
  decodeContainer: Decode<C>,
): StateSchema<SandboxState<C>> {
  return {
    kind: "sandbox",
    migrations: [fromVersion1],
    decode: (field) => decodeSandboxState(field, decodeContainer),
  };
}

/**
 * Version 1 was written by runtimes whose sandboxes ended with the process that made them, and did not say what was in them. What
 * such a process left can only be removed, as it would have been then.
 */
function fromVersion1(old: Field): unknown {
  const createdAtMs = old.field("createdAtMs").integer({ min: 0 });
  const name = old.field("name").string();
  return {
    id: old.field("id").raw,
    name,
    createdAtMs,
    image: old.field("image").raw,
    runDir: old.field("runDir").raw,
    settings: {
      memoryMib: old.field("vm").optional((vm) => vm.field("memoryMib").raw) ?? sandboxLimits.memoryDefaultMib,
      cpus: old.field("vm").optional((vm) => vm.field("cpus").raw) ?? 1,
      acceleration: "auto",
      hostname: name,
      bootTimeoutMs: sandboxLimits.bootTimeoutMs,
      dns: { servers: [], search: [], options: [] },
      sharePids: false,
      stopWithMain: false,
      autoRemove: false,
    },
    annotations: {},
    state: "stopped",
    pending: { operation: "delete", sinceMs: createdAtMs },
    guestImage: "",
    ...(old.field("vm").isAbsent ? {} : { vm: old.field("vm").raw }),
    generation: 0,
    containers: [],
  };
}

function decodeSandboxState<C extends SandboxedContainer>(field: Field, decodeContainer: Decode<C>): SandboxState<C> {
  const id = field.field("id").string({ maxLength: 64 });
  if (!isId(id)) throw field.field("id").expected("an id");
  return {
    id,
    name: field.field("name").string({ minLength: 1, maxLength: 63 }),
    createdAtMs: field.field("createdAtMs").integer({ min: 0 }),
    image: field.field("image").string({ maxLength: 4_096 }),
    runDir: field.field("runDir").string({ minLength: 1, maxLength: 4_096 }),
    settings: decodeSettings(field.field("settings")),
    annotations: decodeAnnotations(field.field("annotations")),
    state: field.field("state").oneOf(lifecycleStates),
    pending: field.field("pending").optional((pending) => decodePending(pending, sandboxIntents)),
    guestImage: field.field("guestImage").string({ maxLength: 128 }),
    cgroups: field
      .field("cgroups")
      .optional((dirs) => dirs.array(decodeCgroup, { maxItems: resourceLimits.cgroupDirsMax })),
    network: field.field("network").optional(decodeNetworkState),
    vm: field.field("vm").optional(decodeVmState),
    agentInstance: field.field("agentInstance").optional((text) => text.string({ maxLength: 1_024 })),
    end: field.field("end").optional(decodeEndCause),
    workloadFrozen: field.field("workloadFrozen").optional((value) => value.boolean()),
    returning: field.field("returning").optional(decodeReturning),
    wake: field.field("wake").optional(decodeWakePlan),
    hibernation: field.field("hibernation").optional(decodeHibernation),
    restarts: field.field("restarts").optional(decodeRestartState),
    stopAsked: field.field("stopAsked").optional((value) => value.boolean()),
    generation: field.field("generation").integer({ min: 0 }),
    checkpoints: field.field("checkpoints").optional((count) => count.integer({ min: 0 })),
    devices: field
      .field("devices")
      .optional((list) => list.array(decodeDevice, { maxItems: vmmLimits.disksMax + deviceLimits.devicesMax })),
    containers: field.field("containers").array(decodeContainer, { maxItems: sandboxLimits.containersMax }),
  };
}

function decodeDevice(field: Field): DeviceState {
  return decodeDeviceState(field, { disk: decodeDiskConfig, device: decodeDeviceConfig });
}

/** It is removed as it is read: nothing but a directory of ours, and no way out of it. */
function decodeSettings(field: Field): SandboxSettings {
  const dns = field.field("dns");
  const words = (name: string): string[] =>
    dns.field(name).array((word) => word.string({ maxLength: 255 }), { maxItems: sandboxLimits.dnsEntriesMax });
  return {
    memoryMib: field.field("memoryMib").integer({ min: 1 }),
    cpus: field.field("cpus").integer({ min: 1 }),
    sizing: field.field("sizing").optional((rules) => ({
      memory: rules.field("memory").oneOf(["fixed", "limits"]),
      cpus: rules.field("cpus").oneOf(["fixed", "limits"]),
    })),
    memoryMaxMib: field.field("memoryMaxMib").optional((size) => size.integer({ min: 1 })),
    cpusMax: field.field("cpusMax").optional((count) => count.integer({ min: 1 })),
    acceleration: field.field("acceleration").oneOf(["auto", "kvm", "tcg"]),
    hostname: field.field("hostname").string({ minLength: 1, maxLength: 63 }),
    bootTimeoutMs: field.field("bootTimeoutMs").integer({ min: 1 }),
    dns: { servers: words("servers"), search: words("search"), options: words("options") },
    sharePids: field.field("sharePids").boolean(),
    sharedMemoryBytes: field.field("sharedMemoryBytes").optional((size) => size.integer({ min: 1 })),
    vhostUser: field.field("vhostUser").optional((value) => value.boolean()),
    stopWithMain: field.field("stopWithMain").boolean(),
    autoRemove: field.field("autoRemove").boolean(),
    vfio: field.field("vfio").optional(decodeVfioSettings),
    network: field.field("network").optional(decodeNetworkSettings),
    template: field.field("template").optional((value) => value.boolean()),
    templateDomain: field.field("templateDomain").optional((name) => name.string({ maxLength: 63 })),
    idleTimeoutMs: field.field("idleTimeoutMs").optional((time) => time.integer({ min: 1 })),
    trail: field.field("trail").optional(decodeTrail),
    restart: field.field("restart").optional(decodeRestart),
  };
}

export function decodePending<Operation extends string>(
  field: Field,
  operations: readonly Operation[],
): Pending<Operation> {
  return {
    operation: field.field("operation").oneOf(operations),
    sinceMs: field.field("sinceMs").integer({ min: 0 }),
  };
}

export function decodeEndCause(field: Field): EndCause {
  return {
    reason: field.field("reason").string({ maxLength: 64 }),
    message: field.field("message").string(),
    atMs: field.field("atMs").integer({ min: 0 }),
  };
}

export function decodeAnnotations(field: Field): Record<string, string> {
  const text = (value: Field): string => value.string({ maxLength: sandboxLimits.annotationMaxLength });
  return field.map(text, { maxItems: sandboxLimits.annotationsMax });
}
