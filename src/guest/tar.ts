/** Writes a tree as a tar archive, compressed with zstd. */
import { writeFile } from "node:fs/promises";
import { buffer } from "node:stream/consumers";
import { constants, zstdCompress } from "node:zlib";
import { pack } from "tar-stream";
import type { FileTree } from "./file-tree.ts";

/** Above this level time grows much faster than the file shrinks: Node's binary takes 4 s and becomes 36 MB. */
const ZSTD_LEVEL = 9;

/** Same tree, same bytes. */
export async function tarArchive(tree: FileTree): Promise<Buffer> {
  const archive = pack();
  for (const [name, entry] of tree.entries()) {
    const common = { name, uid: 0, gid: 0, mtime: new Date(0) };
    if (entry.kind === "directory") archive.entry({ ...common, type: "directory", mode: entry.mode });
    else if (entry.kind === "symlink")
      archive.entry({ ...common, type: "symlink", linkname: entry.target, mode: 0o777 });
    else archive.entry({ ...common, type: "file", mode: entry.mode }, Buffer.from(entry.data));
  }
  archive.finalize();
  return await buffer(archive);
}

export async function writeCompressedTar(tree: FileTree, path: string): Promise<void> {
  const archive = await tarArchive(tree);
  // In one piece, not as a stream: what zstd makes of a stream depends on where its pieces happen to end.
  const compressed = await new Promise<Buffer>((resolve, reject) => {
    const params = { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL };
    zstdCompress(archive, { params }, (error, data) => (error === null ? resolve(data) : reject(error)));
  });
  await writeFile(path, compressed);
}
