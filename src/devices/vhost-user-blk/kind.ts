/** Disks behind a program of their own: the user's, on its socket, or a storage daemon that is started for a file or device. */
import { BelljarError, type Field } from "../../base/index.ts";
import { checkSocket, decodeSocketPath, ownSocket } from "../back-end-socket.ts";
import { checkDiskFile, type DiskFormat } from "../disk-file.ts";
import { checkHostUnused, inspectHostNode } from "../host-node.ts";
import type { DeviceKind, DevicePlace } from "../kind.ts";
import { endStorageDaemon, startStorageDaemon } from "./storage-daemon.ts";

export interface VhostUserBlkConfig {
  readonly kind: "vhost-user-blk";
  /** Of a program that runs already; or else `path`. */
  readonly socketPath?: string | undefined;
  /** A file or block device, for which a storage daemon is started. */
  readonly path?: string | undefined;
  readonly readOnly?: boolean | undefined;
  readonly format?: DiskFormat | undefined;
  /** Found by looking; what a caller says of it does not count. */
  readonly isHostDevice?: boolean | undefined;
}

export const vhostUserBlk: DeviceKind<VhostUserBlkConfig> = {
  decode: (field: Field) => ({
    kind: "vhost-user-blk",
    socketPath: decodeSocketPath(field),
    path: field.field("path").optional((path) => path.string({ minLength: 1, maxLength: 4_096 })),
    readOnly: field.field("readOnly").optional((value) => value.boolean()),
    format: field.field("format").optional((value) => value.oneOf(["raw", "qcow2"])),
    isHostDevice: field.field("isHostDevice").optional((value) => value.boolean()),
  }),

  check: async (config) => {
    const { socketPath, path } = config;
    if ((socketPath === undefined) === (path === undefined)) {
      throw new BelljarError("INVALID_ARGUMENT", "a vhost-user-blk device has either a socket or a path");
    }
    if (path === undefined) {
      await checkSocket(socketPath ?? "");
      return { key: `socket:${socketPath}`, config };
    }
    const node = await inspectHostNode(path);
    if (node.type === "character") {
      throw new BelljarError("DEVICE_UNSUPPORTED", `${path} is a character device, not a disk`);
    }
    const readOnly = config.readOnly === true;
    if (node.type === "block") await checkHostUnused(node.path, readOnly);
    const isHostDevice = node.type === "block";
    const format = await checkDiskFile(node.path, node.sizeBytes, isHostDevice ? "raw" : config.format);
    return { key: node.key, config: { ...config, path: node.path, readOnly, format, isHostDevice } };
  },

  prepare: async ({ path, format = "raw", readOnly = false, isHostDevice = false }, id, place, signal) => {
    if (path === undefined) return undefined;
    const socketPath = ownSocket(place, id);
    return await startStorageDaemon({ socketPath, path, format, isHostDevice, readOnly }, signal);
  },

  release: async (_config, id, place, backEnd) => {
    if (backEnd !== undefined) await endStorageDaemon(backEnd, ownSocket(place, id));
  },

  plug: (config, id, place) => ({
    device: { kind: "vhost-user-blk", id, socketPath: socketOf(config, id, place) },
    modules: ["virtio_blk"],
  }),
};

function socketOf({ socketPath }: VhostUserBlkConfig, id: string, place: DevicePlace): string {
  return socketPath ?? ownSocket(place, id);
}
