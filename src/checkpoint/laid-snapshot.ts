/**
 * A snapshot whose pages lie in a file of the whole memory: what many copies are started from at once, which then share those pages
 * until they change them.
 */
import { open } from "node:fs/promises";
import { runTool } from "../base/index.ts";
import { countPages, type GuestMemory, PAGE_BYTES } from "./memory/index.ts";
import type { Snapshot } from "./snapshot.ts";

/** Makes the file, which must never change again. */
export async function laySnapshot(
  memory: GuestMemory,
  snapshot: Snapshot,
  path: string,
  signal?: AbortSignal,
): Promise<Snapshot> {
  const ram = snapshot.pages.find(({ name }) => name === "ram");
  if (ram === undefined) return snapshot;
  await copyBase(snapshot.memory?.path, ram.sizeBytes, path, signal);
  return await layOver(memory, snapshot, path);
}

/** A file of memory as it was before a guest had anything of its own: a copy of what that was mapped from, or zeros. */
export async function copyBase(
  base: string | undefined,
  sizeBytes: number,
  path: string,
  signal?: AbortSignal,
): Promise<void> {
  if (base === undefined) {
    await using file = await open(path, "wx", 0o600);
    await file.truncate(sizeBytes);
  } else {
    await runTool("cp", ["--reflink=auto", "--sparse=auto", "--", base, path], { signal });
    await using file = await open(path, "r");
    await file.chmod(0o600);
  }
}

/** The same with such a file that is there, and nobody's otherwise. */
export async function layOver(memory: GuestMemory, snapshot: Snapshot, path: string): Promise<Snapshot> {
  const ram = snapshot.pages.find(({ name }) => name === "ram");
  if (ram === undefined) return snapshot;
  await memory.lay(ram, snapshot.pagesPath, path);
  await using file = await open(path, "r");
  await file.chmod(0o400);
  return {
    ...snapshot,
    memory: { path },
    pages: snapshot.pages.filter(({ name, runs }) => name !== "ram" && runs.length > 0),
    pagesAt: snapshot.pagesAt + countPages([ram]) * PAGE_BYTES,
  };
}
