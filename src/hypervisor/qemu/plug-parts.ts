/**
 * What a pluggable thing consists of in QEMU, said on its command line and over QMP alike: first what the host's side needs
 * (files, sockets), then the devices that the guest sees.
 */

/** Plain data that QEMU takes as JSON, for `-blockdev` and `blockdev-add`, `-device` and `device_add`. */
export type QemuObject = {
  readonly [key: string]: string | number | boolean | null | QemuObject | readonly QemuObject[];
};

/** The host's side of a device; `id` is its name in QEMU. */
export type BackEnd =
  | { readonly type: "object"; readonly id: string; readonly value: QemuObject }
  | { readonly type: "blockdev"; readonly id: string; readonly value: QemuObject }
  /** A Unix socket on which another program listens. */
  | { readonly type: "chardev"; readonly id: string; readonly socketPath: string }
  | { readonly type: "netdev"; readonly id: string; readonly value: QemuObject };

export interface PlugParts {
  /** What it is, for an error. */
  readonly what: string;
  /** Made in this order, removed in the other. */
  readonly backEnds: readonly BackEnd[];
  /** Each has an `id`. Of several functions of one slot, function 0 is the last: with it the guest sees them all. */
  readonly devices: readonly PlugDevice[];
}

export type PlugDevice = QemuObject & { readonly id: string };

export function plugArguments(parts: PlugParts): string[] {
  return [
    ...parts.backEnds.flatMap(backEndArguments),
    ...parts.devices.flatMap((device) => ["-device", JSON.stringify(device)]),
  ];
}

function backEndArguments(backEnd: BackEnd): string[] {
  switch (backEnd.type) {
    case "object":
      return ["-object", JSON.stringify(backEnd.value)];
    case "blockdev":
      return ["-blockdev", JSON.stringify(backEnd.value)];
    case "chardev":
      return ["-chardev", `socket,id=${backEnd.id},path=${optionValue(backEnd.socketPath)}`];
    case "netdev":
      return ["-netdev", JSON.stringify(backEnd.value)];
  }
}

/** In QEMU's own option syntax a comma ends the value; doubled it stands for itself. */
export function optionValue(text: string): string {
  return text.replaceAll(",", ",,");
}
