/**
 * PCIe ports: what is plugged into a running VM, other than disks on the common controller, sits on one of them, and they must be
 * there when the guest boots. A port's place is a function of its number, so that a device's place in the guest is known from the
 * port alone: numbers up to `portsMax` are root ports', those from there on belong to the switch, where the VM has one.
 */
import { BelljarError, vmmLimits } from "../../base/index.ts";
import type { QemuObject } from "./plug-parts.ts";

/** Slots of the root bus from here on are ports', eight to a slot; QEMU gives the lower ones to what is always there. */
const FIRST_SLOT = 0x10;
const PORTS_PER_SLOT = 8;
/** The switch's own root port comes after all others. */
const SWITCH_ADDRESS = portAddress(vmmLimits.portsMax);

/** Numbers of the switch's ports begin here. */
export const FIRST_SWITCH_PORT = vmmLimits.portsMax;

export function portId(port: number): string {
  return port < FIRST_SWITCH_PORT ? `port${port}` : `switch${port - FIRST_SWITCH_PORT}`;
}

export function rootPorts(count: number): QemuObject[] {
  return Array.from({ length: count }, (_, port) => rootPort(portId(port), portAddress(port), port + 1));
}

/** A switch with so many ports, and the root port that it hangs on; nothing for none. */
export function switchPorts(count: number): QemuObject[] {
  if (count === 0) return [];
  const chassis = vmmLimits.portsMax + 1;
  return [
    rootPort("switch-root", SWITCH_ADDRESS, chassis),
    { driver: "x3130-upstream", id: "switch", bus: "switch-root", addr: "0.0" },
    ...Array.from({ length: count }, (_, index) => ({
      driver: "xio3130-downstream",
      id: portId(FIRST_SWITCH_PORT + index),
      bus: "switch",
      addr: `${index.toString(16)}.0`,
      chassis: chassis + 1 + index,
    })),
  ];
}

function rootPort(id: string, addr: string, chassis: number): QemuObject {
  return {
    driver: "pcie-root-port",
    id,
    bus: "pcie.0",
    addr,
    multifunction: true,
    chassis,
    // No device of ours has I/O ports, and the guest has few to give away.
    "io-reserve": 0,
  };
}

/** Slot and function on the root bus, as QEMU and the guest write it: `10.3`. */
function portAddress(port: number): string {
  return `${(FIRST_SLOT + Math.floor(port / PORTS_PER_SLOT)).toString(16)}.${port % PORTS_PER_SLOT}`;
}

/** Where the guest has what is on a port, below `/sys/devices/pci0000:00/`: the port's own address there. */
export function guestPortAddress(port: number): string {
  return `0000:00:${portAddress(port)}`;
}

/**
 * The bridges that the guest meets on its way to what is on a port: the one on the root bus, then slot and function of each below
 * it. Numbers of buses are the guest's own affair.
 */
export function guestPortPath(port: number): string[] {
  if (port < FIRST_SWITCH_PORT) return [guestPortAddress(port)];
  const slot = (port - FIRST_SWITCH_PORT).toString(16).padStart(2, "0");
  return [`0000:00:${SWITCH_ADDRESS}`, "00.0", `${slot}.0`];
}

/** @throws BelljarError `INVALID_ARGUMENT` */
export function checkPorts(count: number, max: number = vmmLimits.portsMax): number {
  if (Number.isInteger(count) && count >= 0 && count <= max) return count;
  throw new BelljarError("INVALID_ARGUMENT", `a VM cannot have ${count} ports`, {
    facts: { ports: count, portsMax: max },
  });
}
