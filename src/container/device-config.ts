/** Devices that a container is given: nodes in its /dev, and leave to open them. */
import { BelljarError, deviceLimits, type Field } from "../base/index.ts";

export interface ContainerDeviceConfig {
  /**
   * A block device of the host or a disk image, which is plugged into the VM; or a character device, of which the container gets the
   * guest's own, where the guest has one of that path.
   */
  readonly path: string;
  /** In the container; `path` unless told. */
  readonly containerPath?: string | undefined;
  /** Some of r (read), w (write) and m (make nodes); all unless told. A disk without w is plugged read-only. */
  readonly access?: string | undefined;
}

/** With every default filled in. */
interface SettledDevice {
  readonly path: string;
  readonly containerPath: string;
  readonly access: string;
}

/** @throws BelljarError `INVALID_ARGUMENT`, naming the device */
export function settleDevices(devices: readonly ContainerDeviceConfig[]): readonly SettledDevice[] {
  if (devices.length > deviceLimits.containerDevicesMax) {
    throw new BelljarError("INVALID_ARGUMENT", `a container has at most ${deviceLimits.containerDevicesMax} devices`);
  }
  const seen = new Set<string>();
  return devices.map(({ path, containerPath = path, access = "rwm" }) => {
    const wrong = (what: string): BelljarError =>
      new BelljarError("INVALID_ARGUMENT", `device ${JSON.stringify(path.slice(0, 200))}: ${what}`);
    if (!path.startsWith("/") || path.includes("\0")) throw wrong("not an absolute path");
    if (!isPlain(containerPath)) {
      throw wrong(`${JSON.stringify(containerPath.slice(0, 200))} is no absolute path for a node in the container`);
    }
    if (!/^[rwm]{1,3}$/.test(access) || new Set(access).size !== access.length) {
      throw wrong(`access ${JSON.stringify(access.slice(0, 20))} is not made of r, w and m`);
    }
    if (seen.has(containerPath)) throw wrong(`${containerPath} is the place of another device`);
    seen.add(containerPath);
    return { path, containerPath, access };
  });
}

export function decodeContainerDevice(field: Field): ContainerDeviceConfig {
  const text = (name: string): string | undefined =>
    field.field(name).optional((value) => value.string({ minLength: 1, maxLength: 4_096 }));
  return {
    path: field.field("path").string({ minLength: 1, maxLength: 4_096 }),
    containerPath: text("containerPath"),
    access: text("access"),
  };
}

function isPlain(path: string): boolean {
  if (!path.startsWith("/") || path.length > 4_096 || path.includes("\0")) return false;
  return path
    .slice(1)
    .split("/")
    .every((part) => part !== "" && part !== "." && part !== "..");
}
