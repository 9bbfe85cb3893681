/** Devices, to the wire and back. The runtime checks the values. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../../base/index.ts";
import type { ContainerDeviceConfig } from "../../container/index.ts";
import type { DeviceRequest } from "../../devices/index.ts";
import type { api } from "../../protocol/index.ts";
import type { DeviceInfo } from "../../runtime/index.ts";
import { given } from "./given.ts";

const kinds = [
  "block",
  "generic",
  "vfio",
  "vhost-user-blk",
  "vhost-user-fs",
  "vhost-user-net",
  "vhost-user-scsi",
] as const;
const states = ["detached", "attaching", "attached", "detaching"] as const;

export function toDeviceSpec(config: DeviceRequest): MessageInitShape<typeof api.DeviceSpecSchema> {
  switch (config.kind) {
    case "block": {
      const { cache, rates, isHostDevice: _, ...rest } = config;
      return given({ ...rest, direct: cache?.direct, noFlush: cache?.noFlush, ...rates });
    }
    case "vhost-user-blk": {
      const { isHostDevice: _, ...rest } = config;
      return given(rest);
    }
    case "vfio":
      return given({ kind: config.kind, path: config.source, behindSwitch: config.behindSwitch });
    default:
      return given({ ...config });
  }
}

export function fromDeviceSpec(wire: api.DeviceSpec | undefined): DeviceRequest {
  if (wire === undefined) throw new BelljarError("INVALID_ARGUMENT", "the request has no device");
  const { path, socketPath, directory, readOnly } = wire;
  const kind = oneOf("kind", wire.kind, kinds);
  const format = optionalOf("format", wire.format, ["raw", "qcow2"]);
  switch (kind) {
    case "block":
      return {
        kind,
        path: path ?? "",
        readOnly,
        format,
        driver: optionalOf("driver", wire.driver, ["virtio-scsi", "virtio-blk"]),
        ...cacheOf(wire),
        ...ratesOf(wire),
      };
    case "generic":
      return { kind, path: path ?? "" };
    case "vfio":
      return { kind, source: path ?? "", behindSwitch: wire.behindSwitch };
    case "vhost-user-blk":
      return { kind, path, socketPath, readOnly, format };
    case "vhost-user-scsi":
      return { kind, socketPath: socketPath ?? "" };
    case "vhost-user-net":
      return { kind, socketPath: socketPath ?? "", macAddress: wire.macAddress };
    case "vhost-user-fs": {
      const cache = optionalOf("cache", wire.cache, ["none", "auto", "always"]);
      return { kind, tag: wire.tag ?? "", socketPath, directory, readOnly, cache };
    }
  }
}

export function toDeviceInfo(info: DeviceInfo): MessageInitShape<typeof api.DeviceInfoSchema> {
  return given({ ...info, attachments: [...info.attachments], nodes: [...info.nodes] });
}

export function fromDeviceInfo(wire: api.DeviceInfo | undefined): DeviceInfo {
  if (wire === undefined) throw new BelljarError("INTERNAL", "the daemon's answer has no device");
  const { id, source, readOnly, references, attachments, nodes, isContainers, backEndPid } = wire;
  return {
    id,
    kind: oneOf("kind", wire.kind, kinds),
    source,
    readOnly,
    state: oneOf("state", wire.state, states),
    references,
    attachments,
    nodes,
    isContainers,
    backEndPid,
  };
}

export function fromContainerDevice(wire: api.ContainerDeviceSpec): ContainerDeviceConfig {
  return { path: wire.path, containerPath: wire.containerPath, access: wire.access };
}

function cacheOf({ direct, noFlush }: api.DeviceSpec): { cache?: { direct: boolean; noFlush: boolean } } {
  if (direct === undefined && noFlush === undefined) return {};
  return { cache: { direct: direct === true, noFlush: noFlush === true } };
}

function ratesOf(wire: api.DeviceSpec): Pick<Extract<DeviceRequest, { kind: "block" }>, "rates"> {
  const { readBytesPerSecond, writeBytesPerSecond, readsPerSecond, writesPerSecond } = wire;
  const rates = given({ readBytesPerSecond, writeBytesPerSecond, readsPerSecond, writesPerSecond });
  return Object.keys(rates).length === 0 ? {} : { rates };
}

function oneOf<const T extends string>(field: string, value: string, words: readonly T[]): T {
  const found = words.find((word) => word === value);
  if (found !== undefined) return found;
  throw new BelljarError(
    "INVALID_ARGUMENT",
    `${field} ${JSON.stringify(value.slice(0, 40))} is not one of ${words.join(", ")}`,
  );
}

function optionalOf<const T extends string>(
  field: string,
  value: string | undefined,
  words: readonly T[],
): T | undefined {
  return value === undefined ? undefined : oneOf(field, value, words);
}
