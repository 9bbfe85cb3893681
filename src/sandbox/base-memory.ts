/**
 * The file that a copy's memory is mapped from, under a name of the sandbox's own: whoever removes the template, or the checkpoint,
 * takes nothing away from what runs, or from what is to be saved of it.
 */
import { link, rm } from "node:fs/promises";
import { hasErrno } from "../base/index.ts";

/** Answers the path to map: the new name, or the file's own where it cannot have another one, on another file system. */
export async function linkMemory(path: string, own: string): Promise<string> {
  await rm(own, { force: true });
  try {
    await link(path, own);
    return own;
  } catch (error) {
    if (hasErrno(error, "EXDEV") || hasErrno(error, "EPERM") || hasErrno(error, "EMLINK")) return path;
    throw error;
  }
}
