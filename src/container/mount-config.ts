/** What a caller asks to have mounted in a container, and what was made of it. */
import { decodeProcessIdentity, type Field, mountLimits, type ProcessIdentity } from "../base/index.ts";

export const mountTypes = ["bind", "volume", "tmpfs", "disk"] as const;
export type MountType = (typeof mountTypes)[number];

/** How a file or directory of the host reaches the guest. */
export const bindWays = ["live", "copy", "disk"] as const;
export type BindWay = (typeof bindWays)[number];

export interface MountConfig {
  readonly type: MountType;
  /**
   * `bind`: absolute path of a file or directory, or of a block device with a file system. `volume`: its name; without one the
   * container gets a volume of its own, which goes with it. `disk`: absolute path of a disk image or block device.
   */
  readonly source?: string | undefined;
  /** Absolute path in the container. */
  readonly target: string;
  readonly readOnly?: boolean | undefined;
  /**
   * Of a `bind`. `live`: the host's files themselves, through virtiofs; such a sandbox cannot be checkpointed. `copy`: read-only
   * copies, kept in step with the host; small. `disk`: copied once onto a disk of the container's own. Unless told: `copy` for what
   * is read-only and small enough, otherwise `live`.
   */
  readonly how?: BindWay | undefined;
  /** Of a `bind`: make the directory on the host when it is not there. */
  readonly createSource?: boolean | undefined;
  /** Of a `bind` and a `volume`: private, whatever is asked; a VM has no part in the host's mounts. */
  readonly propagation?: string | undefined;
  /** Of a new `volume`: do not fill it with what the image has at the target. */
  readonly noCopy?: boolean | undefined;
  /** Of a `disk`: found by its superblock unless told. */
  readonly fileSystem?: string | undefined;
  /** Of a `disk`; raw unless told. */
  readonly format?: "raw" | "qcow2" | undefined;
  /** Options of the mount, as mount(8) has them. */
  readonly options?: readonly string[] | undefined;
  /** Of a `tmpfs`, of a new `volume`, of a `bind` by `disk`. */
  readonly sizeBytes?: number | undefined;
  /** Permissions of a `tmpfs`. */
  readonly mode?: number | undefined;
}

/** How a mount is made: `memory` is a tmpfs, `guest` the guest's own directory of that name, `none` what the guest has anyway. */
export const mountWays = ["disk", "copy", "live", "memory", "guest", "none"] as const;
export type MountWay = (typeof mountWays)[number];

export interface MountState {
  readonly type: MountType;
  /** Name of the volume, path on the host, or nothing. */
  readonly source: string;
  readonly destination: string;
  readonly readOnly: boolean;
  readonly how: MountWay;
  /** Of the mount in the container, or of the tmpfs. */
  readonly options: readonly string[];
  /** It is a file, not a directory. */
  readonly isFile?: boolean | undefined;
  readonly disk?: MountedDisk | undefined;
  /** Of a live mount that is made: the program that serves the directory. */
  readonly server?: ProcessIdentity | undefined;
}

export interface MountedDisk {
  readonly serial: string;
  readonly fileSystem: string;
  readonly options: readonly string[];
  /** Directory of the file system that is mounted; the whole unless told. Made when it is not there. */
  readonly directory?: string | undefined;
  /** A directory that is made gets what the image has at the destination. */
  readonly copyUp?: boolean | undefined;
  readonly fsGroup?: { readonly gid: number; readonly always: boolean } | undefined;
  /** Path of a direct-assigned volume: its storage plug-in was told of the sandbox. */
  readonly directVolume?: string | undefined;
}

/** What callers are told of a mount. */
export interface MountInfo {
  readonly type: MountType;
  readonly source: string;
  readonly destination: string;
  readonly readOnly: boolean;
  readonly how: MountWay;
}

export function mountInfo({ type, source, destination, readOnly, how }: MountState): MountInfo {
  return { type, source, destination, readOnly, how };
}

const text = (field: Field): string => field.string({ maxLength: 4_096 });
const flag = (field: Field): boolean => field.boolean();
const words = (field: Field): string[] => field.array(text, { maxItems: mountLimits.optionsMax });

export function decodeMountConfig(field: Field): MountConfig {
  return {
    type: field.field("type").oneOf(mountTypes),
    source: field.field("source").optional(text),
    target: text(field.field("target")),
    readOnly: field.field("readOnly").optional(flag),
    how: field.field("how").optional((how) => how.oneOf(bindWays)),
    createSource: field.field("createSource").optional(flag),
    propagation: field.field("propagation").optional(text),
    noCopy: field.field("noCopy").optional(flag),
    fileSystem: field.field("fileSystem").optional(text),
    format: field.field("format").optional((format) => format.oneOf(["raw", "qcow2"])),
    options: field.field("options").optional(words),
    sizeBytes: field.field("sizeBytes").optional((size) => size.integer({ min: 0 })),
    mode: field.field("mode").optional((mode) => mode.integer({ min: 0, max: 0o7777 })),
  };
}

export function decodeMountState(field: Field): MountState {
  return {
    type: field.field("type").oneOf(mountTypes),
    source: text(field.field("source")),
    destination: text(field.field("destination")),
    readOnly: field.field("readOnly").boolean(),
    how: field.field("how").oneOf(mountWays),
    options: words(field.field("options")),
    isFile: field.field("isFile").optional(flag),
    server: field.field("server").optional(decodeProcessIdentity),
    disk: field.field("disk").optional((disk) => ({
      serial: disk.field("serial").string({ minLength: 1, maxLength: 20 }),
      fileSystem: disk.field("fileSystem").string({ maxLength: 64 }),
      options: words(disk.field("options")),
      directory: disk.field("directory").optional(text),
      copyUp: disk.field("copyUp").optional(flag),
      fsGroup: disk.field("fsGroup").optional((group) => ({
        gid: group.field("gid").integer({ min: 0 }),
        always: group.field("always").boolean(),
      })),
      directVolume: disk.field("directVolume").optional(text),
    })),
  };
}
