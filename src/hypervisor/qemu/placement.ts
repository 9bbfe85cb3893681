/** Gives every disk and device its place in the VM: the one that it says, or the lowest that is free. */
import { BelljarError, vmmLimits } from "../../base/index.ts";
import type { DeviceConfig, DiskConfig } from "../interface.ts";
import type { PlacedDevice } from "./device-arguments.ts";
import type { PlacedDisk } from "./disk-arguments.ts";
import { FIRST_SWITCH_PORT } from "./ports.ts";

export interface Placement {
  readonly disks: readonly PlacedDisk[];
  readonly devices: readonly PlacedDevice[];
}

const NOTHING: Placement = { disks: [], devices: [] };

/**
 * Answers what is new, with its places.
 * @throws BelljarError `INVALID_ARGUMENT` for a bad or repeated id or a place that is taken or none, `TOO_MANY_DEVICES`
 */
export function place(
  added: { readonly disks?: readonly DiskConfig[]; readonly devices?: readonly DeviceConfig[] },
  ports: number,
  present: Placement = NOTHING,
  switchPorts = 0,
): Placement {
  const { disks = [], devices = [] } = added;
  checkNames(
    [...present.disks, ...disks].map(({ serial }) => serial),
    "disk",
  );
  checkNames(
    [...present.devices, ...devices].map(({ id }) => id),
    "device",
  );
  const slots = new Places("slot", vmmLimits.disksMax);
  const taken = new Places("port", ports);
  const behindSwitch = new Places("switch port", FIRST_SWITCH_PORT + switchPorts, FIRST_SWITCH_PORT);
  const placesFor = (device: DeviceConfig): Places =>
    device.kind === "vfio" && device.behindSwitch === true ? behindSwitch : taken;
  // Those that say their place come first, so that nobody else is given it.
  for (const disk of [...present.disks, ...disks]) {
    if (disk.driver === "virtio-blk") taken.take(disk.port, `the disk ${disk.serial}`);
    else slots.take(disk.slot, `the disk ${disk.serial}`);
  }
  for (const device of [...present.devices, ...devices]) placesFor(device).take(device.port, `the device ${device.id}`);
  return {
    disks: disks.map((disk): PlacedDisk => {
      const { driver } = disk;
      if (driver === "virtio-blk") return { ...disk, driver, port: disk.port ?? taken.next(`the disk ${disk.serial}`) };
      const { driver: _, ...rest } = disk;
      const slot = disk.slot ?? slots.next(`the disk ${disk.serial}`);
      return { ...rest, slot, ...(driver === undefined ? {} : { driver }) };
    }),
    devices: devices.map((device) => ({
      ...device,
      port: device.port ?? placesFor(device).next(`the device ${device.id}`),
    })),
  };
}

class Places {
  readonly #what: string;
  /** Below it. */
  readonly #max: number;
  readonly #first: number;
  readonly #taken = new Set<number>();
  #lowest: number;

  constructor(what: string, max: number, first = 0) {
    this.#what = what;
    this.#max = max;
    this.#first = first;
    this.#lowest = first;
  }

  take(at: number | undefined, who: string): void {
    if (at === undefined) return;
    if (!Number.isInteger(at) || at < this.#first || at >= this.#max || this.#taken.has(at)) {
      throw new BelljarError("INVALID_ARGUMENT", `${this.#what} ${at} is taken, or no ${this.#what}, for ${who}`, {
        facts: { [this.#what]: at },
      });
    }
    this.#taken.add(at);
  }

  next(who: string): number {
    while (this.#taken.has(this.#lowest)) this.#lowest += 1;
    const count = this.#max - this.#first;
    if (this.#lowest >= this.#max) {
      throw new BelljarError("TOO_MANY_DEVICES", `all ${count} ${this.#what}s of the VM are taken; none for ${who}`, {
        facts: { place: this.#what, max: count },
      });
    }
    this.#taken.add(this.#lowest);
    return this.#lowest;
  }
}

/** With its prefix a name becomes a QEMU id, of which the first character must be a letter and 31 are allowed. */
function checkNames(names: readonly string[], what: string): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (!/^[a-z0-9-]{1,20}$/.test(name)) {
      throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(name)} is no name for a ${what}`, {
        facts: { name },
        remedy: "Use 1 to 20 of the characters a-z, 0-9 and -.",
      });
    }
    if (seen.has(name))
      throw new BelljarError("INVALID_ARGUMENT", `the VM has a ${what} ${name} already`, { facts: { name } });
    seen.add(name);
  }
}
