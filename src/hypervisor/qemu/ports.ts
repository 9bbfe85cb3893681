/**
 * PCIe root ports: what is plugged into a running VM, other than disks on the common controller, sits on one of them, and they
 * must be there when the guest boots. A port's address is a function of its number, so that a device's place in the guest is
 * known from the port alone.
 */
import { BelljarError, vmmLimits } from "../../base/index.ts";
import type { QemuObject } from "./plug-parts.ts";

/** Slots of the root bus from here on are ports', eight to a slot; QEMU gives the lower ones to what is always there. */
const FIRST_SLOT = 0x10;
const PORTS_PER_SLOT = 8;

export function portId(port: number): string {
  return `port${port}`;
}

export function rootPorts(count: number): QemuObject[] {
  return Array.from({ length: count }, (_, port) => ({
    driver: "pcie-root-port",
    id: portId(port),
    bus: "pcie.0",
    addr: portAddress(port),
    multifunction: true,
    chassis: port + 1,
    // No device of ours has I/O ports, and the guest has few to give away.
    "io-reserve": 0,
  }));
}

/** Slot and function on the root bus, as QEMU and the guest write it: `10.3`. */
function portAddress(port: number): string {
  return `${(FIRST_SLOT + Math.floor(port / PORTS_PER_SLOT)).toString(16)}.${port % PORTS_PER_SLOT}`;
}

/** Where the guest has what is on a port, below `/sys/devices/pci0000:00/`: the port's own address there. */
export function guestPortAddress(port: number): string {
  return `0000:00:${portAddress(port)}`;
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkPorts(count: number): number {
  if (Number.isInteger(count) && count >= 0 && count <= vmmLimits.portsMax) return count;
  throw new BelljarError("INVALID_ARGUMENT", `a VM cannot have ${count} ports`, {
    facts: { ports: count, portsMax: vmmLimits.portsMax },
  });
}
