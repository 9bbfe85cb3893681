/** Reads a `VmState` back from a state file, field by field. */
import { decodeProcessIdentity, type Field, vmmLimits } from "../base/index.ts";
import type { DeviceConfig, DiskCache, DiskConfig, DiskRates, VmState } from "./interface.ts";

const MAC_ADDRESS = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;
const PCI_ADDRESS = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;
/** Functions of one PCI slot. */
const FUNCTIONS_MAX = 8;

export function decodeVmState(field: Field): VmState {
  const devices = field
    .field("devices")
    .optional((list) => list.array(decodeDeviceConfig, { maxItems: vmmLimits.portsMax }));
  const sharedMemory = field.field("sharedMemory").optional((value) => value.boolean());
  const wakePort = field.field("wakePort").optional((value) => value.boolean());
  const ports = field.field("ports").optional((value) => value.integer({ min: 0, max: vmmLimits.portsMax }));
  const switchPorts = field
    .field("switchPorts")
    .optional((value) => value.integer({ min: 1, max: vmmLimits.switchPortsMax }));
  const count = (name: string, min: number): number | undefined =>
    field.field(name).optional((value) => value.integer({ min }));
  return {
    id: field.field("id").string({ minLength: 1, maxLength: 64 }),
    vmm: decodeProcessIdentity(field.field("vmm")),
    runDir: field.field("runDir").string({ minLength: 1 }),
    acceleration: field.field("acceleration").oneOf(["kvm", "tcg"]),
    memoryMib: field.field("memoryMib").integer({ min: 1 }),
    cpus: field.field("cpus").integer({ min: 1 }),
    memoryMaxMib: count("memoryMaxMib", 1),
    cpusMax: count("cpusMax", 1),
    pluggedMemoryMib: count("pluggedMemoryMib", 0),
    pluggedCpus: count("pluggedCpus", 0),
    disks: field.field("disks").array(decodeDiskConfig, { maxItems: vmmLimits.disksMax }),
    ...(devices === undefined ? {} : { devices }),
    ...(sharedMemory === undefined ? {} : { sharedMemory }),
    ...(wakePort === undefined ? {} : { wakePort }),
    ...(ports === undefined ? {} : { ports }),
    ...(switchPorts === undefined ? {} : { switchPorts }),
    memoryFile: field.field("memoryFile").optional((file) => ({
      path: file.field("path").string({ minLength: 1 }),
      use: file.field("use").oneOf(["shared", "private"]),
      template: file.field("template").optional((digest) => digest.string({ maxLength: 64 })),
    })),
  };
}

export function decodeDiskConfig(field: Field): DiskConfig {
  const slot = field.field("slot").optional((value) => value.integer({ min: 0, max: vmmLimits.disksMax - 1 }));
  const driver = field.field("driver").optional((value) => value.oneOf(["virtio-scsi", "virtio-blk"]));
  const isHostDevice = field.field("isHostDevice").optional((value) => value.boolean());
  const cache = field.field("cache").optional(decodeCache);
  const rates = field.field("rates").optional(decodeRates);
  const joined = field.field("joined").optional((number) => number.integer({ min: 1 }));
  const overlays = field.field("overlays").optional((count) => count.integer({ min: 0 }));
  return {
    serial: field.field("serial").string({ pattern: /^[a-z0-9-]{1,20}$/ }),
    path: field.field("path").string({ minLength: 1 }),
    format: field.field("format").oneOf(["raw", "qcow2"]),
    readOnly: field.field("readOnly").boolean(),
    ...(isHostDevice === undefined ? {} : { isHostDevice }),
    ...(slot === undefined ? {} : { slot }),
    ...(driver === undefined ? {} : { driver }),
    ...decodePort(field),
    ...(cache === undefined ? {} : { cache }),
    ...(rates === undefined ? {} : { rates }),
    ...(overlays === undefined ? {} : { overlays }),
    ...(joined === undefined ? {} : { joined }),
  };
}

export function decodeDeviceConfig(field: Field): DeviceConfig {
  const base = { id: field.field("id").string({ pattern: /^[a-z0-9-]{1,20}$/ }), ...decodePort(field) };
  const kind = field
    .field("kind")
    .oneOf(["vhost-user-blk", "vhost-user-scsi", "vhost-user-net", "vhost-user-fs", "vfio", "net"]);
  if (kind === "vfio") {
    const address = (each: Field): string => each.string({ pattern: PCI_ADDRESS });
    const hostAddresses = field.field("hostAddresses").array(address, { maxItems: FUNCTIONS_MAX });
    const behindSwitch = field.field("behindSwitch").optional((value) => value.boolean());
    return { ...base, kind, hostAddresses, ...(behindSwitch === undefined ? {} : { behindSwitch }) };
  }
  if (kind === "net") {
    const tap = field.field("tap").string({ pattern: /^[a-z][a-z0-9]{0,14}$/ });
    return { ...base, kind, tap, macAddress: field.field("macAddress").string({ pattern: MAC_ADDRESS }) };
  }
  const socketPath = field.field("socketPath").string({ minLength: 1, maxLength: 4_096 });
  switch (kind) {
    case "vhost-user-net":
      return { ...base, kind, socketPath, macAddress: field.field("macAddress").string({ pattern: MAC_ADDRESS }) };
    case "vhost-user-fs":
      return { ...base, kind, socketPath, tag: field.field("tag").string({ minLength: 1, maxLength: 36 }) };
    default:
      return { ...base, kind, socketPath };
  }
}

function decodePort(field: Field): { readonly port?: number } {
  const max = vmmLimits.portsMax + vmmLimits.switchPortsMax - 1;
  const port = field.field("port").optional((value) => value.integer({ min: 0, max }));
  return port === undefined ? {} : { port };
}

function decodeCache(field: Field): DiskCache {
  return { direct: field.field("direct").boolean(), noFlush: field.field("noFlush").boolean() };
}

function decodeRates(field: Field): DiskRates {
  const names = ["readBytesPerSecond", "writeBytesPerSecond", "readsPerSecond", "writesPerSecond"] as const;
  const rates = names.map((name) => [name, field.field(name).optional((value) => value.integer({ min: 1 }))] as const);
  return Object.fromEntries(rates.filter(([, rate]) => rate !== undefined));
}
