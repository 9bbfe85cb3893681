/** Disks: files and block devices of the host, on the VM's disk controller or on a port of their own. */
import { BelljarError, type Field } from "../../base/index.ts";
import type { DiskCache, DiskDriver, DiskRates } from "../../hypervisor/interface.ts";
import { checkDiskFile, type DiskFormat } from "../disk-file.ts";
import { checkHostUnused, inspectHostNode } from "../host-node.ts";
import type { DeviceKind } from "../kind.ts";

export interface BlockConfig {
  readonly kind: "block";
  /** A block device of the host, or a file. */
  readonly path: string;
  readonly readOnly?: boolean | undefined;
  /** What the file's first bytes say unless told; a device's is always raw. */
  readonly format?: DiskFormat | undefined;
  /** Found by looking; what a caller says of it does not count. */
  readonly isHostDevice?: boolean | undefined;
  /** `virtio-scsi` unless told. */
  readonly driver?: DiskDriver | undefined;
  readonly cache?: DiskCache | undefined;
  readonly rates?: DiskRates | undefined;
}

const RATES = ["readBytesPerSecond", "writeBytesPerSecond", "readsPerSecond", "writesPerSecond"] as const;

export const block: DeviceKind<BlockConfig> = {
  decode: decodeBlock,

  check: async (config) => {
    const node = await inspectHostNode(config.path);
    if (node.type === "character") {
      throw new BelljarError("DEVICE_UNSUPPORTED", `${config.path} is a character device, not a disk`);
    }
    const isDevice = node.type === "block";
    if (isDevice && config.format === "qcow2") {
      throw new BelljarError("INVALID_ARGUMENT", `${config.path} is a block device: its format is raw`);
    }
    const readOnly = config.readOnly === true;
    if (isDevice) await checkHostUnused(node.path, readOnly);
    const format = await checkDiskFile(node.path, node.sizeBytes, isDevice ? "raw" : config.format);
    for (const name of RATES) checkRate(name, config.rates?.[name]);
    return { key: node.key, config: { ...config, path: node.path, readOnly, format, isHostDevice: isDevice } };
  },

  plug: (config, id) => ({
    disk: {
      serial: id,
      path: config.path,
      format: config.format ?? "raw",
      ...(config.isHostDevice === true ? { isHostDevice: true } : {}),
      readOnly: config.readOnly === true,
      ...(config.driver === undefined ? {} : { driver: config.driver }),
      ...(config.cache === undefined ? {} : { cache: config.cache }),
      ...(config.rates === undefined ? {} : { rates: config.rates }),
    },
    modules: config.driver === "virtio-blk" ? ["virtio_blk"] : [],
  }),
};

function checkRate(name: string, rate: number | undefined): void {
  if (rate === undefined || (Number.isSafeInteger(rate) && rate > 0)) return;
  throw new BelljarError("INVALID_ARGUMENT", `${name} of ${rate} is not a positive whole number`);
}

function decodeBlock(field: Field): BlockConfig {
  const flag = (name: string): boolean | undefined => field.field(name).optional((value) => value.boolean());
  return {
    kind: "block",
    path: field.field("path").string({ minLength: 1, maxLength: 4_096 }),
    readOnly: flag("readOnly"),
    isHostDevice: flag("isHostDevice"),
    format: field.field("format").optional((value) => value.oneOf(["raw", "qcow2"])),
    driver: field.field("driver").optional((value) => value.oneOf(["virtio-scsi", "virtio-blk"])),
    cache: field.field("cache").optional((cache) => ({
      direct: cache.field("direct").boolean(),
      noFlush: cache.field("noFlush").boolean(),
    })),
    rates: field
      .field("rates")
      .optional((rates) =>
        Object.fromEntries(
          RATES.map((name) => [name, rates.field(name).optional((value) => value.integer({ min: 1 }))]).filter(
            ([, rate]) => rate !== undefined,
          ),
        ),
      ),
  };
}
