/**
 * Whether the host itself uses a PCI function: taken from under it, a disk loses what is being written, and an interface the
 * connection by which somebody is working. Asked before a driver is made to let go.
 */
import { join } from "node:path";
import { BelljarError } from "../../base/index.ts";
import type { PciFunction } from "./group.ts";
import { VFIO_DRIVER } from "./group.ts";
import { deviceDir, type PciHost } from "./pci-host.ts";

/** Flag of an interface that is up, as the kernel has it. */
const IFF_UP = 1;
/** How far below a function its block devices may be: a SCSI disk is at host, target, unit, `block`, disk. */
const DEPTH_MAX = 8;
/** Directories below one function that are looked at. */
const DIRECTORIES_MAX = 4_096;

/** @throws BelljarError `DEVICE_IN_USE`, saying by what */
export async function checkUnused(host: PciHost, { address, driver }: PciFunction): Promise<void> {
  if (driver === undefined || driver === VFIO_DRIVER) return;
  const dir = deviceDir(host, address);
  if ((await host.read(join(dir, "boot_vga"))) === "1") throw inUse(address, "it is the host's display");
  for await (const { kind, name, path } of devicesBelow(host, dir)) {
    if (kind === "net") {
      const flags = Number.parseInt((await host.read(join(path, "flags"))) ?? "0", 16);
      if ((flags & IFF_UP) !== 0) throw inUse(address, `its network interface ${name} is up`);
    } else {
      const uevent = (await host.read(join(path, "uevent"))) ?? "";
      // One path of a disk that may have several has no file of its own.
      const node = /^DEVNAME=(.+)$/m.exec(uevent)?.[1] ?? name.replace(/^(nvme\d+)c\d+/, "$1");
      if (await host.isBusy(join(host.devDir, node)))
        throw inUse(address, `its disk ${name} is mounted, or in other use`);
    }
  }
}

interface HostDevice {
  readonly kind: "net" | "block";
  readonly name: string;
  readonly path: string;
}

/** Interfaces and whole disks of a function; a partition that is in use makes its disk refuse as well. */
async function* devicesBelow(host: PciHost, dir: string): AsyncGenerator<HostDevice> {
  const waiting = [{ path: dir, depth: 0 }];
  for (let seen = 0; seen < DIRECTORIES_MAX; seen += 1) {
    const next = waiting.shift();
    if (next === undefined) return;
    const { path, depth } = next;
    for (const name of await host.list(path)) {
      const below = join(path, name);
      if (name === "net" || name === "block") {
        for (const device of await host.list(below)) yield { kind: name, name: device, path: join(below, device) };
      } else if (/^nvme\d+(?:c\d+)?n\d+$/.test(name)) {
        yield { kind: "block", name, path: below };
      } else if (depth < DEPTH_MAX && (await leadsOn(host, below, name))) {
        waiting.push({ path: below, depth: depth + 1 });
      }
    }
  }
}

/** Devices below this one, which are real directories; links lead elsewhere. */
async function leadsOn(host: PciHost, path: string, name: string): Promise<boolean> {
  const isBus = /^(?:\d|nvme|host|target|virtio|usb|ata|end_device|port|expander|link|mmc|ieee)/.test(name);
  return isBus && (await host.linkName(path)) === undefined && (await host.list(path)).length > 0;
}

function inUse(address: string, why: string): BelljarError {
  return new BelljarError("DEVICE_IN_USE", `the host uses ${address}: ${why}`, {
    facts: { device: address },
    remedy: "Unmount it, or take it down, and try again.",
  });
}
