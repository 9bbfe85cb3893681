/**
 * Direct-assigned volumes, as storage plug-ins for Kata Containers leave them: below a directory that both know, named by the
 * base64 of the path that is to be mounted, a file says which block device stands behind that path. A file named by the
 * sandbox's id is the answer: the plug-in finds by it who has the volume.
 */
import { open, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, type Field, hasErrno, mountLimits, parseJson } from "../base/index.ts";

export const DIRECT_VOLUMES_DIR = "/run/kata-containers/shared/direct-volumes";

const INFO_FILE = "mountInfo.json";

export interface DirectVolume {
  readonly device: string;
  readonly fileSystem: string;
  readonly options: readonly string[];
  readonly readOnly: boolean;
  readonly fsGroup: FsGroup | undefined;
}

/** Files of the volume get this group. */
export interface FsGroup {
  readonly gid: number;
  /** Even when the volume's root has it already. */
  readonly always: boolean;
}

/** Undefined when the path is nothing of the kind. @throws BelljarError `INVALID_ARGUMENT` for a file that cannot be understood */
export async function readDirectVolume(volumesDir: string, path: string): Promise<DirectVolume | undefined> {
  const file = join(directoryOf(volumesDir, path), INFO_FILE);
  let text: string;
  try {
    if ((await stat(file)).size > mountLimits.mountInfoMaxBytes) throw invalid(file, "it is too large");
    text = await readFile(file, "utf8");
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ENOTDIR") || hasErrno(error, "ENAMETOOLONG")) return undefined;
    throw error;
  }
  return decode(parseJson(text, "mount info", "INVALID_ARGUMENT"), file);
}

export async function recordSandbox(volumesDir: string, path: string, sandboxId: string): Promise<void> {
  const file = await open(join(directoryOf(volumesDir, path), sandboxId), "w", 0o600);
  await file.close();
}

/** Nothing there is success. */
export async function forgetSandbox(volumesDir: string, path: string, sandboxId: string): Promise<void> {
  await rm(join(directoryOf(volumesDir, path), sandboxId), { force: true });
}

function directoryOf(volumesDir: string, path: string): string {
  // The alphabet for addresses, with padding: the other one has a slash.
  return join(volumesDir, Buffer.from(path).toString("base64").replaceAll("+", "-").replaceAll("/", "_"));
}

function decode(field: Field, file: string): DirectVolume {
  const type = field.field("volume-type").string({ maxLength: 64 });
  if (type !== "block") throw invalid(file, `its volume type is ${JSON.stringify(type)}, and only block is known`);
  const options =
    field
      .field("options")
      .optional((list) =>
        list.array((option) => option.string({ maxLength: 256 }), { maxItems: mountLimits.optionsMax }),
      ) ?? [];
  const metadata =
    field.field("metadata").optional((map) => map.map((value) => value.string({ maxLength: 256 }))) ?? {};
  return {
    device: field.field("device").string({ minLength: 1, maxLength: 4_096 }),
    fileSystem: field.field("fstype").string({ maxLength: 64 }),
    options: options.filter((option) => option !== "ro" && option !== "rw"),
    readOnly: options.includes("ro"),
    fsGroup: fsGroupOf(metadata, file),
  };
}

function fsGroupOf(metadata: Readonly<Record<string, string>>, file: string): FsGroup | undefined {
  const { fsGroup, fsGroupChangePolicy: policy = "Always" } = metadata;
  if (fsGroup === undefined) {
    if (metadata["fsGroupChangePolicy"] === undefined) return undefined;
    throw invalid(file, "it has a policy for the change of the group, and no group");
  }
  if (!/^\d{1,10}$/.test(fsGroup) || Number(fsGroup) > 0xffff_fffe) throw invalid(file, `${fsGroup} is no group`);
  if (policy !== "Always" && policy !== "OnRootMismatch") throw invalid(file, `${policy} is no policy`);
  return { gid: Number(fsGroup), always: policy === "Always" };
}

function invalid(file: string, problem: string): BelljarError {
  return new BelljarError("INVALID_ARGUMENT", `${file} cannot be used: ${problem}`, { facts: { file } });
}
