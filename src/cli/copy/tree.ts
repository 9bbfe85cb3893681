/** What `cp` needs of a place that files come from, or go to; both sides of a copy are one. */
import type { DirectoryEntry, FileAttributes, FileInfo } from "../../sdk/index.ts";

export interface Source {
  /** @throws BelljarError `FILE_NOT_FOUND` */
  stat(path: string, follow: boolean): Promise<FileInfo>;
  list(path: string): Promise<readonly DirectoryEntry[]>;
  read(path: string): AsyncIterable<Uint8Array>;
}

export interface Destination {
  /** True when it was made, false when it was there. */
  makeDirectory(path: string): Promise<boolean>;
  write(path: string, data: AsyncIterable<Uint8Array>, attributes: FileAttributes): Promise<void>;
  makeLink(path: string, target: string, attributes: FileAttributes): Promise<void>;
  /** Of a directory, when everything is in it. */
  finishDirectory(path: string, attributes: FileAttributes): Promise<void>;
}

export interface CopyOptions {
  /** Owners too. */
  readonly archive: boolean;
  /** Setuid, setgid and sticky. What comes to this host must not bring programs that run as somebody else, unless that was asked for. */
  readonly keepSpecialBits: boolean;
  readonly signal: AbortSignal;
  readonly report: CopyReport;
}

/** What was done so far, for people and for `--json`. */
export class CopyReport {
  files = 0;
  directories = 0;
  links = 0;
  bytes = 0;
  /** Paths of devices, sockets and fifos, which are not copied. */
  readonly skipped: string[] = [];
  readonly #changed: (report: CopyReport) => void;

  constructor(changed: (report: CopyReport) => void) {
    this.#changed = changed;
  }

  count(what: "bytes" | "directories" | "files" | "links", by = 1): void {
    this[what] += by;
    this.#changed(this);
  }
}

export async function* counted(data: AsyncIterable<Uint8Array>, report: CopyReport): AsyncGenerator<Uint8Array> {
  for await (const piece of data) {
    report.count("bytes", piece.length);
    yield piece;
  }
}
