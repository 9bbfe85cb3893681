/** What `sandbox.json` holds of a device: what it is, who has it, and where the VM has it, so that the same VM can be built again. */
import { type Decode, decodeProcessIdentity, deviceLimits, type Field, type ProcessIdentity } from "../base/index.ts";
import type { DeviceConfig, DiskConfig } from "../hypervisor/interface.ts";
import { type DeviceRequest, decodeDeviceRequest } from "./kinds.ts";

export const devicePhases = ["detached", "attaching", "attached", "detaching"] as const;
export type DevicePhase = (typeof devicePhases)[number];

/** A node that the guest's drivers have made. */
export interface GuestNode {
  /** Below /dev. */
  readonly name: string;
  readonly type: "block" | "character";
  readonly major: number;
  readonly minor: number;
}

export interface DeviceState {
  /** Unique in the sandbox; a disk's serial number in the guest. */
  readonly id: string;
  /** Equal for what is the same device. */
  readonly key: string;
  readonly config: DeviceRequest;
  /** A container's own disk, or a layer of its image: nobody else's to add or remove. */
  readonly isContainers: boolean;
  readonly phase: DevicePhase;
  /** Who knows it, once per time: `sandbox`, or a container's id. */
  readonly references: readonly string[];
  /** Who has it attached, once per time; the VM has it while there is any. */
  readonly attachments: readonly string[];
  /** With its place in the VM, as the VM has or had it. */
  readonly disk?: DiskConfig | undefined;
  readonly device?: DeviceConfig | undefined;
  /** The program behind it, where we started one. */
  readonly backEnd?: ProcessIdentity | undefined;
  readonly nodes: readonly GuestNode[];
}

export interface HypervisorDecoders {
  readonly disk: Decode<DiskConfig>;
  readonly device: Decode<DeviceConfig>;
}

export function decodeDeviceState(field: Field, decoders: HypervisorDecoders): DeviceState {
  const holders = (name: string): string[] =>
    field
      .field(name)
      .array((holder) => holder.string({ minLength: 1, maxLength: 64 }), { maxItems: deviceLimits.holdersMax });
  return {
    id: field.field("id").string({ pattern: /^[a-z0-9-]{1,20}$/ }),
    key: field.field("key").string({ minLength: 1, maxLength: 4_200 }),
    config: decodeDeviceRequest(field.field("config")),
    isContainers: field.field("isContainers").boolean(),
    phase: field.field("phase").oneOf(devicePhases),
    references: holders("references"),
    attachments: holders("attachments"),
    disk: field.field("disk").optional(decoders.disk),
    device: field.field("device").optional(decoders.device),
    backEnd: field.field("backEnd").optional(decodeProcessIdentity),
    nodes: field.field("nodes").array(decodeNode, { maxItems: deviceLimits.nodesMax }),
  };
}

function decodeNode(field: Field): GuestNode {
  return {
    name: field.field("name").string({ minLength: 1, maxLength: 255 }),
    type: field.field("type").oneOf(["block", "character"]),
    major: field.field("major").integer({ min: 0 }),
    minor: field.field("minor").integer({ min: 0 }),
  };
}
