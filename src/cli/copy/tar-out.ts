/** A file, or a directory with everything in it, as a tar stream. */
import { once } from "node:events";
import { join } from "node:path/posix";
import { type Header, type Pack, pack } from "tar-stream";
import { BelljarError, fileLimits, throwIfAborted } from "../../base/index.ts";
import type { FileInfo } from "../../sdk/index.ts";
import { attributesOf } from "./copy-tree.ts";
import { type CopyOptions, counted, type Source } from "./tree.ts";

interface TarSource {
  readonly tree: Source;
  readonly path: string;
  /** In the archive. */
  readonly name: string;
  readonly info: FileInfo;
}

/** @param output takes a piece; false when nobody reads any more */
export async function writeTar(
  source: TarSource,
  options: CopyOptions,
  output: (piece: Uint8Array) => Promise<boolean>,
): Promise<void> {
  const archive = pack();
  const stop = new AbortController();
  const adding = add(archive, source, options, stop.signal, 1).then(() => archive.finalize());
  adding.catch((error: unknown) => archive.destroy(BelljarError.from(error)));
  try {
    for await (const piece of archive) if (!(piece instanceof Uint8Array) || !(await output(piece))) break;
    stop.abort();
  } finally {
    archive.destroy();
    stop.abort();
    // Its failure came out of the archive, or is that nobody reads.
    await adding.catch(() => {});
  }
}

async function add(
  archive: Pack,
  { tree, path, name, info }: TarSource,
  options: CopyOptions,
  stopped: AbortSignal,
  depth: number,
): Promise<void> {
  const { signal, report } = options;
  throwIfAborted(signal);
  stopped.throwIfAborted();
  const { mode = 0 } = attributesOf(info, { archive: true, keepSpecialBits: options.keepSpecialBits });
  const header = { name, mode, uid: info.uid, gid: info.gid, mtime: new Date(info.modifiedAtMs) };
  switch (info.type) {
    case "directory":
      if (depth > fileLimits.treeDepthMax) {
        throw new BelljarError("PATH_INVALID", `${path} lies in more than ${fileLimits.treeDepthMax} directories`);
      }
      archive.entry({ ...header, type: "directory", name: `${name}/` });
      report.count("directories");
      for (const entry of await tree.list(path)) {
        const child = { tree, path: join(path, entry.name), name: `${name}/${entry.name}`, info: entry.info };
        await add(archive, child, options, stopped, depth + 1);
      }
      return;
    case "file":
      await addFile(
        archive,
        { ...header, type: "file", size: info.sizeBytes },
        counted(tree.read(path), report),
        stopped,
      );
      report.count("files");
      return;
    case "link":
      archive.entry({ ...header, type: "symlink", linkname: info.linkTarget ?? "" });
      report.count("links");
      return;
    default:
      report.skipped.push(path);
  }
}

/** As many bytes as the header says: what was added since is left out, and what is missing is an error. */
async function addFile(
  archive: Pack,
  header: Pick<Header, "name" | "size"> & Partial<Header>,
  data: AsyncIterable<Uint8Array>,
  stopped: AbortSignal,
): Promise<void> {
  const { promise: written, resolve, reject } = Promise.withResolvers<void>();
  written.catch(() => {});
  const entry = archive.entry(header, (error) => (error ? reject(error) : resolve()));
  // What fails is told by the archive.
  entry.on("error", () => {});
  let left = header.size;
  for await (const piece of data) {
    const part = piece.subarray(0, left);
    left -= part.length;
    if (part.length > 0 && !entry.write(part)) await once(entry, "drain", { signal: stopped });
    if (left === 0) break;
  }
  if (left > 0) throw new BelljarError("FILE_BUSY", `${header.name} became smaller while it was read`);
  entry.end(null);
  await written;
}
