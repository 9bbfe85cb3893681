/**
 * PCI devices of the host, whole IOMMU groups of them. Before the VM can have one it is taken from the host's drivers, and when it has
 * it no more, they get it back.
 */
import { BelljarError, type Field, vmmLimits } from "../../base/index.ts";
import type { DeviceKind, DevicePlace } from "../kind.ts";
import { decodePciAddress } from "./binding.ts";
import type { VfioHolder } from "./claims.ts";
import { parseVfioSource } from "./source.ts";

export interface VfioConfig {
  readonly kind: "vfio";
  /** An address, or a group's file; when it is written down, the address of its first function. */
  readonly source: string;
  /** Found by looking; what a caller says of it does not count. */
  readonly hostAddresses?: readonly string[] | undefined;
  /** Behind the VM's PCIe switch, not on a root port. */
  readonly behindSwitch?: boolean | undefined;
}

export const vfio: DeviceKind<VfioConfig> = {
  decode: (field: Field) => ({
    kind: "vfio",
    source: field.field("source").string({ minLength: 1, maxLength: 256 }),
    hostAddresses: field
      .field("hostAddresses")
      .optional((list) => list.array(decodePciAddress, { maxItems: vmmLimits.portFunctionsMax })),
    behindSwitch: field.field("behindSwitch").optional((value) => value.boolean()),
  }),

  check: async (config, { vfioClaims }) => {
    const parsed = parseVfioSource(config.source);
    if (parsed.kind === "control") {
      throw new BelljarError("DEVICE_UNSUPPORTED", `${config.source} is no device, but what VFIO is controlled by`, {
        remedy: "Name the device itself: its address, or its group.",
      });
    }
    const { functions } = await vfioClaims.find(parsed);
    const hostAddresses = functions.map(({ address }) => address);
    const [source = config.source] = hostAddresses;
    const behindSwitch = config.behindSwitch === true;
    return { key: `vfio:${source}`, config: { kind: "vfio", source, hostAddresses, behindSwitch } };
  },

  prepare: async ({ source }, _id, place) => {
    const parsed = parseVfioSource(source);
    if (parsed.kind !== "control") await place.vfioClaims.take(parsed, holderOf(place));
    return undefined;
  },

  release: async ({ source }, _id, place) => {
    const held = await place.vfioClaims.heldBy(holderOf(place));
    const claim = held.find(({ functions }) => functions.includes(source));
    if (claim !== undefined) await place.vfioClaims.giveBack(claim.group, holderOf(place));
  },

  plug: ({ hostAddresses = [], behindSwitch }, id) => ({
    device: { kind: "vfio", id, hostAddresses, ...(behindSwitch === true ? { behindSwitch } : {}) },
    modules: [],
  }),
};

function holderOf({ rootDir, sandboxId }: DevicePlace): VfioHolder {
  return { rootDir, sandboxId };
}
