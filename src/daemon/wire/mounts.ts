/** Mounts and volumes, to the wire and back. The runtime checks the values. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../../base/index.ts";
import { bindWays, type MountConfig, type MountInfo, mountTypes, mountWays } from "../../container/index.ts";
import type { api } from "../../protocol/index.ts";
import type { VolumeCreateConfig, VolumeInfo } from "../../runtime/index.ts";
import { given } from "./given.ts";

export function toMountSpec({ options, ...rest }: MountConfig): MessageInitShape<typeof api.MountSpecSchema> {
  return given({ ...rest, options: options === undefined ? undefined : { values: [...options] } });
}

export function fromMountSpec(wire: api.MountSpec): MountConfig {
  const { source, target, readOnly, createSource, propagation, noCopy, fileSystem, sizeBytes, mode } = wire;
  return given({
    type: oneOf(mountTypes, wire.type, "type"),
    source,
    target,
    readOnly,
    how: wire.how === undefined ? undefined : oneOf(bindWays, wire.how, "way"),
    createSource,
    propagation,
    noCopy,
    fileSystem,
    format: wire.format === undefined ? undefined : oneOf(["raw", "qcow2"] as const, wire.format, "format"),
    options: wire.options?.values,
    sizeBytes,
    mode,
  });
}

export function toMountInfo(info: MountInfo): MessageInitShape<typeof api.MountInfoSchema> {
  return { ...info };
}

export function fromMountInfo(wire: api.MountInfo): MountInfo {
  const { source, destination, readOnly } = wire;
  const type = oneOf(mountTypes, wire.type, "type");
  return { type, source, destination, readOnly, how: oneOf(mountWays, wire.how, "way") };
}

export function toVolumeRequest(config: VolumeCreateConfig): MessageInitShape<typeof api.CreateVolumeRequestSchema> {
  return given({ name: config.name, sizeBytes: config.sizeBytes, labels: { ...config.labels } });
}

export function toVolumeInfo(info: VolumeInfo): MessageInitShape<typeof api.VolumeInfoSchema> {
  return { ...info, labels: { ...info.labels }, users: info.users.map((user) => ({ ...user })) };
}

export function fromVolumeInfo(wire: api.VolumeInfo | undefined): VolumeInfo {
  if (wire === undefined) throw new BelljarError("INTERNAL", "the daemon's answer has no volume");
  const { name, createdAtMs, sizeBytes, usedBytes, path, labels } = wire;
  const users = wire.users.map(({ sandboxId, containerId, destination, readOnly, mounted }) => ({
    sandboxId,
    containerId,
    destination,
    readOnly,
    mounted,
  }));
  return { name, createdAtMs, sizeBytes, usedBytes, path, labels, users };
}

function oneOf<const T extends string>(words: readonly T[], word: string, what: string): T {
  const found = words.find((each) => each === word);
  if (found !== undefined) return found;
  const message = `${JSON.stringify(word.slice(0, 40))} is no ${what} of a mount`;
  throw new BelljarError("INVALID_ARGUMENT", message, { remedy: `Use one of ${words.join(", ")}.` });
}
