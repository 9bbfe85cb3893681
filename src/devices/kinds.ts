/** The kinds of devices, each with its configuration. */
import type { Field, ProcessIdentity } from "../base/index.ts";
import { type BlockConfig, block } from "./block/kind.ts";
import { type GenericConfig, generic } from "./generic/kind.ts";
import type { DeviceKind, DevicePlace, Plugged } from "./kind.ts";
import { type VfioConfig, vfio } from "./vfio/kind.ts";
import { type VhostUserBlkConfig, vhostUserBlk } from "./vhost-user-blk/kind.ts";
import { type VhostUserFsConfig, vhostUserFs } from "./vhost-user-fs/kind.ts";
import { type VhostUserNetConfig, vhostUserNet } from "./vhost-user-net/kind.ts";
import { type VhostUserScsiConfig, vhostUserScsi } from "./vhost-user-scsi/kind.ts";

/** What a caller asks for, and, with its defaults filled in, what is written down. */
export type DeviceRequest =
  | BlockConfig
  | GenericConfig
  | VfioConfig
  | VhostUserBlkConfig
  | VhostUserFsConfig
  | VhostUserNetConfig
  | VhostUserScsiConfig;

export const kinds = {
  block,
  generic,
  vfio,
  "vhost-user-blk": vhostUserBlk,
  "vhost-user-fs": vhostUserFs,
  "vhost-user-net": vhostUserNet,
  "vhost-user-scsi": vhostUserScsi,
} as const satisfies { readonly [K in DeviceRequest["kind"]]: DeviceKind<Extract<DeviceRequest, { kind: K }>> };

export const kindNames = Object.keys(kinds) as readonly DeviceRequest["kind"][];

/** A configuration together with what its kind does with it. */
export interface BoundKind {
  check(place: DevicePlace): Promise<{ readonly key: string; readonly config: DeviceRequest }>;
  prepare(id: string, place: DevicePlace, signal: AbortSignal | undefined): Promise<ProcessIdentity | undefined>;
  release(id: string, place: DevicePlace, backEnd: ProcessIdentity | undefined): Promise<void>;
  plug(id: string, place: DevicePlace): Plugged;
}

export function kindOf(config: DeviceRequest): BoundKind {
  switch (config.kind) {
    case "block":
      return bind(block, config);
    case "generic":
      return bind(generic, config);
    case "vfio":
      return bind(vfio, config);
    case "vhost-user-blk":
      return bind(vhostUserBlk, config);
    case "vhost-user-fs":
      return bind(vhostUserFs, config);
    case "vhost-user-net":
      return bind(vhostUserNet, config);
    case "vhost-user-scsi":
      return bind(vhostUserScsi, config);
  }
}

/** @throws BelljarError `STATE_CORRUPT` for a kind that there is not, as everywhere in a state file */
export function decodeDeviceRequest(field: Field): DeviceRequest {
  return kinds[field.field("kind").oneOf(kindNames)].decode(field);
}

function bind<C extends DeviceRequest>(kind: DeviceKind<C>, config: C): BoundKind {
  return {
    check: (place) => kind.check(config, place),
    prepare: async (id, place, signal) => await kind.prepare?.(config, id, place, signal),
    release: async (id, place, backEnd) => await kind.release?.(config, id, place, backEnd),
    plug: (id, place) => kind.plug(config, id, place),
  };
}
