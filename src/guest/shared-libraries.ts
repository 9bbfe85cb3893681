/** Adds to a tree the shared libraries that its programs need, found by name in the unpacked packages. */
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { BelljarError, hasErrno } from "../base/index.ts";
import { isElf, neededLibraries } from "./elf.ts";
import type { FileTree } from "./file-tree.ts";
import type { ArchitectureFacts } from "./recipe.ts";

/** @throws BelljarError `GUEST_BUILD_FAILED` naming the library and what needs it */
export async function addSharedLibraries(
  tree: FileTree,
  packageDirs: ReadonlyMap<string, string>,
  architecture: ArchitectureFacts,
): Promise<void> {
  const loaderName = basename(architecture.dynamicLoader);
  const waiting: { readonly name: string; readonly by: string }[] = [];
  const seen = new Set<string>();
  const collect = (data: Uint8Array, by: string): void => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    if (!isElf(bytes)) return;
    for (const name of neededLibraries(bytes, by)) waiting.push({ name, by });
  };
  for (const [path, entry] of tree.entries()) if (entry.kind === "file") collect(entry.data, path);

  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (seen.has(next.name)) continue;
    seen.add(next.name);
    const data = await findLibrary(next.name, packageDirs, architecture);
    if (data === undefined) {
      throw new BelljarError(
        "GUEST_BUILD_FAILED",
        `${next.by} needs ${next.name}, which is in none of the recipe's packages`,
        { facts: { library: next.name, neededBy: next.by } },
      );
    }
    const isLoader = next.name === loaderName;
    tree.file(isLoader ? architecture.dynamicLoader : `${architecture.libraryDirectory}/${next.name}`, data, 0o755);
    collect(data, next.name);
  }
  if (seen.size > 0 && !seen.has(loaderName)) {
    const loader = await findLibrary(loaderName, packageDirs, architecture);
    if (loader !== undefined) tree.file(architecture.dynamicLoader, loader, 0o755);
  }
}

async function findLibrary(
  name: string,
  packageDirs: ReadonlyMap<string, string>,
  { libraryDirectory, dynamicLoader }: ArchitectureFacts,
): Promise<Buffer | undefined> {
  const places = [libraryDirectory, `usr/${libraryDirectory}`];
  if (name === basename(dynamicLoader)) places.push("lib64", "usr/lib64");
  for (const directory of packageDirs.values()) {
    for (const place of places) {
      try {
        // Follows the link from the library's name to the file with its full version.
        return await readFile(join(directory, place, name));
      } catch (error) {
        if (!hasErrno(error, "ENOENT")) throw error;
      }
    }
  }
  return undefined;
}
