/** What this host has mounted, and the files behind its loop devices. */
import { readFile, stat } from "node:fs/promises";
import { BelljarError, hasErrno } from "../base/index.ts";

export interface HostMount {
  readonly target: string;
  readonly type: string;
  readonly source: string;
  /** `major:minor` */
  readonly device: string;
  readonly readOnly: boolean;
}

/** In the order in which they were made. */
export async function readHostMounts(): Promise<readonly HostMount[]> {
  return parseMounts(await readFile("/proc/self/mountinfo", "utf8"));
}

export function parseMounts(mountinfo: string): readonly HostMount[] {
  return mountinfo.split("\n").flatMap((line) => {
    const [before = "", after = ""] = line.split(" - ");
    const [, , device = "", , target = "", options = ""] = before.split(" ");
    const [type = "", source = "", superOptions = ""] = after.split(" ");
    if (target === "" || type === "") return [];
    const readOnly = [options, superOptions].some((words) => words.split(",").includes("ro"));
    return [{ target: readable(target), type, source: readable(source), device, readOnly }];
  });
}

/** Blanks, tabs, line feeds and backslashes are three octal digits there. */
function readable(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** The file that a loop device shows as a whole; the path itself for all else, a part of a file included. */
export async function behindLoop(path: string): Promise<string> {
  const name = /^\/dev\/(loop\d+)$/.exec(path)?.[1];
  if (name === undefined) return path;
  const read = async (what: string): Promise<string> =>
    (await readFile(`/sys/block/${name}/loop/${what}`, "utf8")).replace(/\n$/, "");
  try {
    if (Number(await read("offset")) !== 0 || Number(await read("sizelimit")) !== 0) return path;
    const file = await read("backing_file");
    // One that was removed since is only there through the device.
    return (await stat(file)).isFile() ? file : path;
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return path;
    throw error;
  }
}

/** How QEMU has to open a block device, as a part of a disk's configuration; nothing for a file. */
export async function hostDevice(path: string): Promise<{ readonly isHostDevice?: true }> {
  return (await stat(path)).isBlockDevice() ? { isHostDevice: true } : {};
}

/**
 * A file system belongs to one kernel at a time, unless nobody writes to it.
 * @throws BelljarError `VOLUME_IN_USE`
 */
export async function checkNotMounted(
  paths: readonly string[],
  mounts: readonly HostMount[],
  readOnly: boolean,
): Promise<void> {
  for (const path of new Set(paths)) {
    const info = await stat(path);
    const numbers = info.isBlockDevice() ? `${info.rdev >> 8}:${info.rdev & 0xff}` : undefined;
    for (const mount of mounts) {
      if (mount.device !== numbers && (await behindLoop(mount.source)) !== path) continue;
      if (mount.readOnly && readOnly) continue;
      throw new BelljarError("VOLUME_IN_USE", `${path} is mounted on this host, at ${mount.target}`, {
        facts: { path, target: mount.target },
        remedy: "Unmount it first.",
      });
    }
  }
}
