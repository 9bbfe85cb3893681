/** A tar stream into a directory of a container. Names that point out of it are refused; hard links become files of their own. */
import { once } from "node:events";
import { dirname, join } from "node:path/posix";
import { type Extract, extract, type Header } from "tar-stream";
import { BelljarError, throwIfAborted } from "../../base/index.ts";
import type { FileAttributes } from "../../sdk/index.ts";
import { attributesOf } from "./copy-tree.ts";
import { type CopyOptions, counted, type Destination, type Source } from "./tree.ts";

type Entry = Extract extends AsyncIterable<infer E> ? E : never;

export async function readTar(
  input: AsyncIterable<Uint8Array>,
  to: { readonly tree: Destination & Source; readonly path: string },
  options: CopyOptions,
): Promise<void> {
  const archive = extract();
  const feeding = feed(input, archive);
  feeding.catch((error: unknown) => archive.destroy(BelljarError.from(error)));
  /** Attributes of directories are set when everything is in them. */
  const directories = new Map<string, FileAttributes>();
  const known = new Set<string>(["."]);
  try {
    for await (const entry of archive) {
      throwIfAborted(options.signal);
      await put(entry, to, options, directories, known);
    }
    await feeding;
  } catch (cause) {
    if (cause instanceof BelljarError) throw cause;
    throw new BelljarError("INVALID_ARGUMENT", "standard input is not a tar archive", { cause });
  } finally {
    archive.destroy();
  }
  // Those in others first: setting one changes nothing of what is above it.
  for (const [path, attributes] of [...directories].reverse())
    await to.tree.finishDirectory(join(to.path, path), attributes);
}

async function put(
  entry: Entry,
  { tree, path }: { readonly tree: Destination & Source; readonly path: string },
  options: CopyOptions,
  directories: Map<string, FileAttributes>,
  known: Set<string>,
): Promise<void> {
  const { header } = entry;
  const { report } = options;
  const name = safeName(header.name);
  const attributes = attributesOf(infoOf(header), options);
  const makeParents = async (below: string): Promise<void> => {
    if (known.has(below)) return;
    await makeParents(dirname(below));
    if (await tree.makeDirectory(join(path, below))) directories.set(below, { mode: 0o755 });
    known.add(below);
  };
  await makeParents(dirname(name));
  switch (header.type) {
    case "file":
    case "contiguous-file":
      await tree.write(join(path, name), counted(bytesOf(entry), report), attributes);
      report.count("files");
      return;
    case "link":
      await tree.write(join(path, name), tree.read(join(path, safeName(header.linkname))), attributes);
      report.count("files");
      break;
    case "directory":
      await makeParents(name);
      if (name !== ".") directories.set(name, attributes);
      report.count("directories");
      break;
    case "symlink":
      await tree.makeLink(join(path, name), header.linkname, attributes);
      report.count("links");
      break;
    default:
      report.skipped.push(header.name);
  }
  entry.resume();
}

/** Below the directory that is unpacked into. @throws BelljarError `PATH_INVALID` */
function safeName(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes(".."))
    throw new BelljarError("PATH_INVALID", `the archive has a name that points out of it: ${name}`);
  return parts.join("/") || ".";
}

function infoOf({ mode, uid, gid, mtime }: Header): {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modifiedAtMs: number;
} {
  return { mode: mode & 0o7777, uid, gid, modifiedAtMs: mtime.getTime() };
}

async function* bytesOf(entry: Entry): AsyncGenerator<Uint8Array> {
  for await (const piece of entry) if (piece instanceof Uint8Array) yield piece;
}

async function feed(input: AsyncIterable<Uint8Array>, archive: Extract): Promise<void> {
  for await (const piece of input) {
    if (archive.destroyed) return;
    if (!archive.write(piece)) await Promise.race([once(archive, "drain"), once(archive, "close")]);
  }
  archive.end(null);
}
