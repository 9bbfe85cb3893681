/** How devices of the host that are handed to the guest are said to QEMU. */
import type { VfioDevice } from "../interface.ts";
import type { PlugParts } from "./plug-parts.ts";
import { portId } from "./ports.ts";

/** All functions share the port's one slot, at the function numbers that they have in their order. */
export function vfioParts(device: VfioDevice & { readonly port: number }): PlugParts {
  const { id, hostAddresses, port } = device;
  const functions = hostAddresses.map((host, index) => ({
    driver: "vfio-pci",
    id: `dev-${id}-${index}`,
    bus: portId(port),
    addr: `0.${index}`,
    ...(hostAddresses.length > 1 ? { multifunction: true } : {}),
    host,
  }));
  return { what: `VFIO device ${id}`, backEnds: [], devices: functions.reverse() };
}
