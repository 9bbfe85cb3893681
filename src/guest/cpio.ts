/** Writes a tree as a cpio archive in the "newc" format, the one the kernel unpacks as its initramfs. */
import type { FileTree, TreeEntry } from "./file-tree.ts";

const FILE_TYPE = { directory: 0o040000, file: 0o100000, symlink: 0o120000 } as const;
const TRAILER = "TRAILER!!!";

/** Same tree, same bytes: inode numbers count up, owner and time are zero. */
export function cpioArchive(tree: FileTree): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  for (const [path, entry] of tree.entries()) {
    const mode = FILE_TYPE[entry.kind] | (entry.kind === "symlink" ? 0o777 : entry.mode);
    parts.push(member(path, contentOf(entry), { inode, mode, links: entry.kind === "directory" ? 2 : 1 }));
    inode += 1;
  }
  parts.push(member(TRAILER, Buffer.alloc(0), { inode: 0, mode: 0, links: 1 }));
  return Buffer.concat(parts);
}

function contentOf(entry: TreeEntry): Uint8Array {
  if (entry.kind === "file") return entry.data;
  return entry.kind === "symlink" ? Buffer.from(entry.target) : Buffer.alloc(0);
}

interface MemberFacts {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
}

function member(path: string, content: Uint8Array, { inode, mode, links }: MemberFacts): Buffer {
  const name = Buffer.from(`${path}\0`);
  // magic, then: inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name, checksum
  const numbers = [inode, mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(`070701${numbers.map((number) => number.toString(16).padStart(8, "0")).join("")}`);
  return Buffer.concat([padded(Buffer.concat([header, name])), padded(content)]);
}

/** Headers and contents each end on a multiple of four bytes. */
function padded(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc((4 - (data.length % 4)) % 4)]);
}
