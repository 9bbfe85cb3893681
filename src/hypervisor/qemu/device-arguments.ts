/** How every device that is no disk of the VM's own is said to QEMU. */
import type { DeviceConfig } from "../interface.ts";
import type { BackEnd, PlugDevice, PlugParts, QemuObject } from "./plug-parts.ts";
import { portId } from "./ports.ts";
import { vfioParts } from "./vfio-arguments.ts";

/** A device with its port. */
export type PlacedDevice = DeviceConfig & { readonly port: number };

export function deviceParts(device: PlacedDevice): PlugParts {
  if (device.kind === "vfio") return vfioParts(device);
  const { id, kind } = device;
  const front = (driver: string, rest: QemuObject): PlugDevice => ({
    driver,
    id: `dev-${id}`,
    bus: portId(device.port),
    ...rest,
  });
  const what = `${kind} device ${id}`;
  // No boot from the network: the device's boot program would be one more thing of ours to load.
  const nic = (net: string, mac: string): PlugDevice => front("virtio-net-pci", { netdev: net, mac, romfile: "" });
  if (device.kind === "net") {
    const net = `net-${id}`;
    // Nothing is run to set the tap up: it is there.
    const value = { type: "tap", id: net, ifname: device.tap, script: "no", downscript: "no" };
    return { what, backEnds: [{ type: "netdev", id: net, value }], devices: [nic(net, device.macAddress)] };
  }
  const { socketPath } = device;
  const socket = `socket-${id}`;
  const chardev: BackEnd = { type: "chardev", id: socket, socketPath };
  switch (device.kind) {
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
        devices: [nic(net, device.macAddress)],
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
