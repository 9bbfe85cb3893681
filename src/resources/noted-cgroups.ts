/**
 * The control group of a VMM that is no sandbox's yet: written down beside its sockets before it is made, so that whoever comes after a kill
 * finds it.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Field, hasErrno, parseJson, resourceLimits } from "../base/index.ts";
import { writeFileDurably } from "../store/index.ts";

const FILE = "cgroups.json";

/** A directory that `HostCgroups.plan` may have said. @throws BelljarError of the field */
export function decodeCgroup(field: Field): string {
  const dir = field.string({ maxLength: 4_096 });
  if (/^\/(?:[^/]+\/)*belljar\/[0-9a-f]{8}\/[0-9a-z]+$/.test(dir) && !dir.split("/").includes("..")) return dir;
  throw field.expected("a directory of a control group of ours");
}

export async function noteCgroups(runDir: string, dirs: readonly string[]): Promise<void> {
  await writeFileDurably(join(runDir, FILE), JSON.stringify(dirs));
}

/** None where nothing was noted. @throws BelljarError `STATE_CORRUPT` */
export async function notedCgroups(runDir: string): Promise<readonly string[]> {
  const path = join(runDir, FILE);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ENOTDIR")) return [];
    throw error;
  }
  return parseJson(text, path, "STATE_CORRUPT").array(decodeCgroup, { maxItems: resourceLimits.cgroupDirsMax });
}
