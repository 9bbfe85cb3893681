/**
 * Which devices a container may open. By docker's default it has CAP_MKNOD, so without these rules it could make, and open, a
 * node for any device of the guest: the disks of other containers, the agent's port to the host, loop devices.
 */
import type { OciDeviceRule } from "./oci-spec.ts";

function character(major: number, minor?: number): OciDeviceRule {
  return { allow: true, type: "c", major, ...(minor === undefined ? {} : { minor }), access: "rwm" };
}

/** Later rules win. Nodes may be made, since archives contain them; only these may be opened. */
export const DEVICE_RULES: readonly OciDeviceRule[] = [
  { allow: false, access: "rwm" },
  { allow: true, type: "c", access: "m" },
  { allow: true, type: "b", access: "m" },
  character(1, 3), // null
  character(1, 5), // zero
  character(1, 7), // full
  character(1, 8), // random
  character(1, 9), // urandom
  character(5, 0), // tty
  character(5, 2), // ptmx
  character(136), // pts/*
];
