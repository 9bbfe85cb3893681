/**
 * Character devices that cannot be handed on: only counted, as what a container asked for. The container gets the guest's own
 * device of the same path, where the guest has one.
 */
import { BelljarError, type Field } from "../../base/index.ts";
import type { DeviceKind } from "../kind.ts";

export interface GenericConfig {
  readonly kind: "generic";
  /** In /dev. */
  readonly path: string;
}

const DEVICE_PATH = /^\/dev\/[A-Za-z0-9_-]+(?:\/[A-Za-z0-9_-]+)*$/;

export const generic: DeviceKind<GenericConfig> = {
  decode: (field: Field) => ({ kind: "generic", path: field.field("path").string({ pattern: DEVICE_PATH }) }),
  check: async (config) => {
    if (!DEVICE_PATH.test(config.path)) {
      throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(config.path)} is no path of a device`);
    }
    return { key: `guest:${config.path}`, config };
  },
  plug: () => ({ modules: [] }),
};
