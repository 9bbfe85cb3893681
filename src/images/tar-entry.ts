/**
 * One entry of a tar archive, independent of the dialect it was written in. Names are bytes: they are held as Latin-1
 * strings (one character per byte), so that a name that is not UTF-8 comes out as it went in. Use `shownName` for people.
 */

export type TarEntryKind = "file" | "hardLink" | "symlink" | "characterDevice" | "blockDevice" | "directory" | "fifo";

export interface TarTime {
  /** Since the epoch; negative before it. */
  readonly seconds: number;
  /** 0 to 999,999,999, always forward from `seconds`. */
  readonly nanoseconds: number;
}

/** A stretch of a sparse file that has data; what lies between is a hole. */
export interface TarSegment {
  readonly offset: number;
  readonly length: number;
}

export interface TarEntry {
  readonly path: string;
  readonly kind: TarEntryKind;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: TarTime;
  /** Target of a hard link or symlink, else empty. */
  readonly linkTarget: string;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** Size of the file once unpacked, holes included; 0 for everything but files. */
  readonly sizeBytes: number;
  /** Bytes of data in the archive, without a sparse map. */
  readonly storedBytes: number;
  /** Only for sparse files; in ascending order, not overlapping, not empty. */
  readonly segments?: readonly TarSegment[];
  /** Values by attribute name (Latin-1, as paths). */
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

/** A name for messages: UTF-8 where it is, control characters escaped, cut when it is very long. */
export function shownName(latin1: string): string {
  const text = Buffer.from(latin1, "latin1").toString("utf8");
  const cut = text.length > 200 ? `${text.slice(0, 120)}...${text.slice(-60)}` : text;
  return JSON.stringify(cut);
}
