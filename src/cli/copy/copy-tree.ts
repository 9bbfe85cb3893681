/** Copies a file, or a directory with everything in it, from one place to another. */
import { join as joinPath } from "node:path";
import { basename, normalize } from "node:path/posix";
import { BelljarError, fileLimits, throwIfAborted } from "../../base/index.ts";
import type { FileAttributes, FileInfo } from "../../sdk/index.ts";
import { type CopyOptions, counted, type Destination, type Source } from "./tree.ts";

/** A source that is copied by its contents, not as a directory of its name: `dir/.` */
export function isContentsOnly(path: string): boolean {
  return path === "." || path.endsWith("/.");
}

/** The name that a copy has in an existing directory. */
export function nameOf(path: string): string {
  const name = basename(normalize(path));
  return name === "." || name === ".." ? "" : name;
}

/**
 * Where a copy goes, by docker's rules: into an existing directory under its own name, or, when only its contents are copied, right into
 * it; otherwise to the very path.
 */
export async function resolveDestination(
  source: { readonly path: string; readonly info: FileInfo },
  path: string,
  stat: Source["stat"],
): Promise<string> {
  const isDirectory = source.info.type === "directory";
  const there = await stat(path, true).catch((error: unknown) => {
    if (error instanceof BelljarError && error.reason === "FILE_NOT_FOUND") return undefined;
    throw error;
  });
  if (there?.type === "directory") {
    return isDirectory && isContentsOnly(source.path) ? path : joinPath(path, nameOf(source.path));
  }
  if (there !== undefined && isDirectory) {
    throw new BelljarError("NOT_A_DIRECTORY", `${path} is not a directory, so a directory cannot be copied to it`);
  }
  if (!isDirectory && path.endsWith("/")) {
    throw new BelljarError("NOT_A_DIRECTORY", `${path} is not a directory that exists`);
  }
  return path;
}

export async function copyTree(
  from: { readonly tree: Source; readonly path: string; readonly info: FileInfo },
  to: { readonly tree: Destination; readonly path: string },
  options: CopyOptions,
  depth = 1,
): Promise<void> {
  const { signal, report } = options;
  throwIfAborted(signal);
  const attributes = attributesOf(from.info, options);
  switch (from.info.type) {
    case "directory": {
      if (depth > fileLimits.treeDepthMax) {
        throw new BelljarError("PATH_INVALID", `${from.path} lies in more than ${fileLimits.treeDepthMax} directories`);
      }
      const isNew = await to.tree.makeDirectory(to.path);
      for (const { name, info } of await from.tree.list(from.path)) {
        const child = { tree: from.tree, path: joinPath(from.path, name), info };
        await copyTree(child, { tree: to.tree, path: joinPath(to.path, name) }, options, depth + 1);
      }
      if (isNew) await to.tree.finishDirectory(to.path, attributes);
      report.count("directories");
      return;
    }
    case "file":
      await to.tree.write(to.path, counted(from.tree.read(from.path), report), attributes);
      report.count("files");
      return;
    case "link":
      await to.tree.makeLink(to.path, from.info.linkTarget ?? "", attributes);
      report.count("links");
      return;
    default:
      report.skipped.push(from.path);
  }
}

export function attributesOf(
  info: Pick<FileInfo, "gid" | "mode" | "modifiedAtMs" | "uid">,
  { archive, keepSpecialBits }: Pick<CopyOptions, "archive" | "keepSpecialBits">,
): FileAttributes {
  return {
    mode: keepSpecialBits ? info.mode : info.mode & 0o777,
    modifiedAtMs: info.modifiedAtMs,
    ...(archive ? { user: `${info.uid}:${info.gid}` } : {}),
  };
}
