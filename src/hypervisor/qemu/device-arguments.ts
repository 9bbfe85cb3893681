/** How every device that is no disk of the VM's own is said to QEMU. */
import type { DeviceConfig } from "../interface.ts";
import type { BackEnd, PlugDevice, PlugParts, QemuObject } from "./plug-parts.ts";
import { portId } from "./ports.ts";
import { vfioParts } from "./vfio-arguments.ts";

/** A device with its port. */
export type PlacedDevice = DeviceConfig & { readonly port: number };

export function deviceParts(device: PlacedDevice): PlugParts {
  if (device.kind === "vfio") return vfioParts(device);
  const { id, kind, socketPath } = device;
  const socket = `socket-${id}`;
  const chardev: BackEnd = { type: "chardev", id: socket, socketPath };
  const front = (driver: string, rest: QemuObject): PlugDevice => ({
    driver,
    id: `dev-${id}`,
    bus: portId(device.port),
    ...rest,
  });
  const what = `${kind} device ${id}`;
  switch (kind) {
    case "vhost-user-blk":
      return { what, backEnds: [chardev], devices: [front("vhost-user-blk-pci", { chardev: socket })] };
    case "vhost-user-scsi":
      return { what, backEnds: [chardev], devices: [front("vhost-user-scsi-pci", { chardev: socket })] };
    case "vhost-user-net": {
      const net = `net-${id}`;
      const value = { type: "vhost-user", id: net, chardev: socket };
      return {
        what,
        backEnds: [chardev, { type: "netdev", id: net, value }],
        // No boot from the network: the device's boot program would be one more thing of ours to load.
        devices: [front("virtio-net-pci", { netdev: net, mac: device.macAddress, romfile: "" })],
      };
    }
    case "vhost-user-fs":
      return {
        what,
        backEnds: [chardev],
        devices: [front("vhost-user-fs-pci", { chardev: socket, tag: device.tag, "queue-size": FS_QUEUE_SIZE })],
      };
  }
}

/** Requests that the guest may have under way with a shared directory. */
const FS_QUEUE_SIZE = 1024;
