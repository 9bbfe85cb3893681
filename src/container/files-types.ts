/** Files of a container: what is known of them, what can be done with them, and the single calls that this is made of. */

export type FileType = "file" | "directory" | "link" | "block-device" | "character-device" | "fifo" | "socket";

export interface FileInfo {
  readonly type: FileType;
  /** The lower twelve bits: permissions, setuid, setgid, sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Milliseconds since the epoch, by the guest's clock; fractions to the microsecond. */
  readonly modifiedAtMs: number;
  /** Of a link. It may lead anywhere, and is never followed out of the container. */
  readonly linkTarget?: string | undefined;
}

export interface DirectoryEntry {
  readonly name: string;
  readonly info: FileInfo;
}

export interface DirectoryList {
  /** Ordered by the bytes of their names. */
  readonly entries: readonly DirectoryEntry[];
  /** How many are left out, because their names are not UTF-8. */
  readonly unnameable: number;
}

export interface FileAttributes {
  readonly mode?: number | undefined;
  /** "name", "uid", either with ":group" or ":gid", from the container's own files. */
  readonly user?: string | undefined;
  readonly modifiedAtMs?: number | undefined;
}

export interface FileEvent {
  /** Created: a name has appeared, or stands for something else than before. Overflow: events are missing here. */
  readonly kind: "created" | "changed" | "removed" | "overflow";
  /** In the directory; empty for the watched file or directory itself. */
  readonly name: string;
}

export interface FileCallOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Files of a `ready` or `running` container. Paths begin at its root; no path leads out of it, through links neither, and none into
 * proc, sysfs and the like. While it runs its mounts are seen (tmpfs, /dev/shm), as its first process has them. Devices, sockets and
 * fifos are never opened.
 */
export interface Files {
  /** Whole. @throws BelljarError `FILE_TOO_LARGE` above 64 MiB */
  read(path: string, options?: FileCallOptions): Promise<Uint8Array>;
  /** One file from its beginning to its end, whatever becomes of its name; errors come out of the stream. */
  readStream(path: string, options?: FileCallOptions): ReadableStream<Uint8Array>;
  /**
   * All or nothing: a reader sees the old file or the new one. Mode and owner that are not given stay those of the file that is
   * replaced; a new one has 0644 and root. Directories above it that are missing are made, unless `parents` is false.
   */
  write(
    path: string,
    data: string | Uint8Array | AsyncIterable<Uint8Array>,
    options?: { readonly parents?: boolean | undefined } & FileAttributes & FileCallOptions,
  ): Promise<void>;
  list(path: string, options?: FileCallOptions): Promise<DirectoryList>;
  /** Links at the end of the path are followed unless told. @throws BelljarError `FILE_NOT_FOUND` */
  stat(path: string, options?: { readonly follow?: boolean | undefined } & FileCallOptions): Promise<FileInfo>;
  /** With `parents`, those above too, and a directory that is there is success. */
  makeDirectory(
    path: string,
    options?: { readonly parents?: boolean | undefined } & FileAttributes & FileCallOptions,
  ): Promise<void>;
  /** A symbolic link, in place of what had the name unless that is a directory. */
  makeLink(path: string, target: string, options?: FileAttributes & FileCallOptions): Promise<void>;
  /** A link itself, not what it leads to. */
  remove(path: string, options?: { readonly recursive?: boolean | undefined } & FileCallOptions): Promise<void>;
  /** In place of what had the new name, as rename(2) has it. */
  rename(path: string, newPath: string, options?: FileCallOptions): Promise<void>;
  /** Of a link itself when the path ends at one. */
  setAttributes(path: string, attributes: FileAttributes, options?: FileCallOptions): Promise<void>;
  /** Of a file, or of the entries of a directory, not of those below them. Resolves when it watches; ends with the signal. */
  watch(path: string, options?: FileCallOptions): Promise<AsyncIterable<FileEvent>>;
  /** What the others are made of. */
  readonly calls: FileCalls;
}

export interface DirectoryPage extends DirectoryList {
  /** There are further ones, after the last name of this page. */
  readonly more: boolean;
}

export interface NumberedFileEvent extends FileEvent {
  readonly sequence: bigint;
}

/** Open files and watches have ids that the caller chooses: what is repeated with the same id, at the same offset, does no harm. */
export interface FileCalls {
  stat(request: { readonly path: string; readonly follow: boolean }, options?: FileCallOptions): Promise<FileInfo>;
  list(request: { readonly path: string; readonly after: string }, options?: FileCallOptions): Promise<DirectoryPage>;
  /** Answers what is read, or what will be replaced. One that nobody uses for a minute is closed. */
  open(
    request: { readonly id: string; readonly path: string; readonly write: boolean },
    options?: FileCallOptions,
  ): Promise<FileInfo | undefined>;
  /** A full piece, unless it is the last one. */
  read(request: { readonly id: string; readonly offset: number }, options?: FileCallOptions): Promise<FilePiece>;
  write(
    request: { readonly id: string; readonly offset: number; readonly data: Uint8Array },
    options?: FileCallOptions,
  ): Promise<void>;
  /** Closes it too. */
  commit(
    request: { readonly id: string; readonly sizeBytes: number; readonly attributes: FileAttributes },
    options?: FileCallOptions,
  ): Promise<void>;
  /** Of an open file or of a watch. What was not committed is gone. Nothing there is success. */
  close(request: { readonly id: string }, options?: FileCallOptions): Promise<void>;
  makeDirectory(
    request: { readonly path: string; readonly parents: boolean; readonly attributes: FileAttributes },
    options?: FileCallOptions,
  ): Promise<void>;
  makeLink(
    request: { readonly path: string; readonly target: string; readonly attributes: FileAttributes },
    options?: FileCallOptions,
  ): Promise<void>;
  remove(request: { readonly path: string; readonly recursive: boolean }, options?: FileCallOptions): Promise<void>;
  rename(request: { readonly path: string; readonly newPath: string }, options?: FileCallOptions): Promise<void>;
  setAttributes(
    request: { readonly path: string; readonly attributes: FileAttributes },
    options?: FileCallOptions,
  ): Promise<void>;
  /** Events after the sequence number, waiting for the first one at most `waitMs`. The first call with an id begins the watch. */
  watch(
    request: { readonly id: string; readonly path: string; readonly after: bigint; readonly waitMs: number },
    options?: FileCallOptions,
  ): Promise<readonly NumberedFileEvent[]>;
}

export interface FilePiece {
  readonly data: Uint8Array;
  /** Nothing comes after it. */
  readonly end: boolean;
}
