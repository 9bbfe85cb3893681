/** A container's own disks: sparse files, with an empty ext4 for the one that lies over the read-only layers of its image. */
import { mkdir, open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { runTool } from "../base/index.ts";
import type { MakeDisk } from "./create.ts";

/** mke2fs options that keep the file sparse and its making quick: tables and journal are written when first used. */
const EXT4_OPTIONS = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];

/** @throws BelljarError `DISK_FULL`, `HOST_TOOL_MISSING`, `HOST_TOOL_FAILED`, `CANCELLED`; the file is removed then. */
export const makeDisk: MakeDisk = async (path, sizeBytes, { empty, signal, filledFrom }) => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, "wx", 0o600);
  try {
    await file.truncate(sizeBytes);
  } finally {
    await file.close();
  }
  if (empty) return;
  try {
    const filled = filledFrom === undefined ? [] : ["-d", filledFrom];
    await runTool("mke2fs", [...EXT4_OPTIONS, ...filled, path], { signal });
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
};
