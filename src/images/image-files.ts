/**
 * The files of an image that somebody else wrote, by name: a directory, or an archive. Whatever names the image contains,
 * nothing outside is ever opened: in a directory every component is opened without following links; of an archive nothing is
 * unpacked, a name is looked up in a table of byte ranges.
 *
 * Archives are read here and not by skopeo: its copy would be one more unpacking in other people's rules, and the digests
 * must be checked here anyway.
 */
import { constants, createReadStream, createWriteStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { BelljarError, hasErrno, imageLimits, throwIfAborted } from "../base/index.ts";
import { compressionOf, decompress } from "./decompress.ts";
import { FileSource } from "./file-source.ts";
import { LayerRuleError, splitName } from "./layer-tree.ts";
import { shownName } from "./tar-entry.ts";
import { TarFormatError } from "./tar-header.ts";
import { TarReader } from "./tar-reader.ts";

export const READ_BYTES = 256 * 1024;

export interface ImageFile {
  readonly sizeBytes: number;
  /** Each call reads from the start. */
  read(): AsyncIterable<Buffer>;
}

export interface ImageFiles {
  /** Undefined when there is no such file. `name` is relative, with `/`. */
  find(name: string): Promise<ImageFile | undefined>;
}

/** The whole of a file that should be small. @throws BelljarError `IMAGE_INVALID` */
export async function readDocumentFile(file: ImageFile, what: string): Promise<Buffer> {
  if (file.sizeBytes > imageLimits.documentMaxBytes) {
    throw new BelljarError(
      "IMAGE_INVALID",
      `${what} has ${file.sizeBytes} bytes; the limit is ${imageLimits.documentMaxBytes}`,
      {
        facts: { sizeBytes: file.sizeBytes, limitBytes: imageLimits.documentMaxBytes },
      },
    );
  }
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of file.read()) {
    bytes += chunk.length;
    if (bytes > file.sizeBytes) throw new BelljarError("IMAGE_INVALID", `${what} grew while it was read`);
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

export class DirectoryFiles implements ImageFiles {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async find(name: string): Promise<ImageFile | undefined> {
    const probe = await this.#open(name);
    if (probe === undefined) return undefined;
    const { size } = await probe.stat();
    await probe.close();
    const reopen = (): Promise<FileHandle | undefined> => this.#open(name);
    return {
      sizeBytes: size,
      read: async function* () {
        const file = await reopen();
        if (file === undefined)
          throw new BelljarError("IMAGE_INVALID", `${shownName(name)} vanished while it was read`);
        yield* file.createReadStream({ highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>;
      },
    };
  }

  /** One component at a time, each relative to the one before, so that no link is followed and nothing can be swapped. */
  async #open(name: string): Promise<FileHandle | undefined> {
    const parts = hostileName(name);
    let path = this.#directory;
    const opened: FileHandle[] = [];
    try {
      for (const [index, part] of parts.entries()) {
        const last = index === parts.length - 1;
        // A pipe without a writer must not hang the import.
        const flags = constants.O_RDONLY | constants.O_NOFOLLOW | (last ? constants.O_NONBLOCK : constants.O_DIRECTORY);
        const handle = await open(join(path, part), flags);
        opened.push(handle);
        path = `/proc/self/fd/${handle.fd}`;
      }
      const file = opened.pop();
      if (file === undefined) return undefined;
      if (!(await file.stat()).isFile()) {
        await file.close();
        throw new BelljarError("IMAGE_HOSTILE", `${shownName(name)} is not a plain file`, { facts: { entry: name } });
      }
      return file;
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return undefined;
      if (hasErrno(error, "ELOOP") || hasErrno(error, "ENOTDIR")) {
        throw new BelljarError("IMAGE_HOSTILE", `${shownName(name)} is, or lies below, a symlink`, {
          facts: { entry: name },
          cause: error,
        });
      }
      throw error;
    } finally {
      for (const handle of opened) await handle.close();
    }
  }
}

function hostileName(name: string): string[] {
  try {
    return splitName(name, "name");
  } catch (error) {
    if (!(error instanceof LayerRuleError)) throw error;
    throw new BelljarError("IMAGE_HOSTILE", `the image refers to ${shownName(name)}: ${error.message}`, {
      facts: { entry: name },
    });
  }
}

interface Range {
  readonly start: number;
  readonly sizeBytes: number;
}

export class ArchiveFiles implements ImageFiles {
  readonly #path: string;
  readonly #ranges = new Map<string, Range>();
  /** `docker save` once wrote layers that occur twice as links to the first. */
  readonly #links = new Map<string, string>();

  private constructor(path: string) {
    this.#path = path;
  }

  /** Reads the table of contents; a compressed archive is decompressed into `stagingDir` first. */
  static async open(archive: string, stagingDir: string, signal?: AbortSignal): Promise<ArchiveFiles> {
    const path = await plainArchive(archive, stagingDir, signal);
    const files = new ArchiveFiles(path);
    await files.#scan(archive);
    throwIfAborted(signal);
    return files;
  }

  names(): string[] {
    return [...this.#ranges.keys()];
  }

  async find(name: string): Promise<ImageFile | undefined> {
    let key = hostileName(name).join("/");
    for (let hops = 0; this.#links.has(key) && hops < 8; hops += 1) key = this.#links.get(key) ?? key;
    const range = this.#ranges.get(key);
    if (range === undefined) return undefined;
    const { start, sizeBytes } = range;
    const path = this.#path;
    return {
      sizeBytes,
      read: async function* () {
        if (sizeBytes === 0) return;
        yield* createReadStream(path, {
          start,
          end: start + sizeBytes - 1,
          highWaterMark: READ_BYTES,
        }) as AsyncIterable<Buffer>;
      },
    };
  }

  /** Its entries are few (`archiveEntriesMax`), and their data is passed over. */
  async #scan(shown: string): Promise<void> {
    const reader = new TarReader(new FileSource(this.#path));
    let current = "(first)";
    let entries = 0;
    try {
      for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
        current = shownName(entry.path);
        entries += 1;
        if (entries > imageLimits.archiveEntriesMax)
          throw new LayerRuleError(`the archive has more than ${imageLimits.archiveEntriesMax} entries`);
        const key = splitName(entry.path, "name").join("/");
        if (entry.kind === "directory") continue;
        if (this.#ranges.has(key) || this.#links.has(key))
          throw new LayerRuleError("the archive has a file of this name already");
        if (entry.kind === "symlink") this.#links.set(key, resolveLink(key, entry.linkTarget));
        else if (entry.kind === "hardLink") this.#links.set(key, splitName(entry.linkTarget, "link target").join("/"));
        else if (entry.kind === "file" && entry.segments === undefined) {
          this.#ranges.set(key, { start: reader.position, sizeBytes: entry.sizeBytes });
        } else throw new LayerRuleError("it is neither a plain file nor a directory");
      }
    } catch (error) {
      if (!(error instanceof LayerRuleError) && !(error instanceof TarFormatError)) throw error;
      const reason = entries === 0 ? "IMAGE_INVALID" : "IMAGE_HOSTILE";
      const where = entries === 0 ? "is not an image archive" : `: entry ${current} is refused`;
      throw new BelljarError(reason, `${shown} ${where}: ${error.message}`.replace(" :", ":"), {
        facts: { entry: current, archive: shown },
      });
    } finally {
      await reader.close();
    }
  }
}

function resolveLink(from: string, target: string): string {
  if (target.startsWith("/")) throw new LayerRuleError("its link target is absolute");
  const parts = from.split("/").slice(0, -1);
  for (const part of target.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) throw new LayerRuleError("its link target lies outside the archive");
  }
  return parts.join("/");
}

/** The archive itself when it is not compressed, else a copy of it that is not. */
async function plainArchive(archive: string, stagingDir: string, signal?: AbortSignal): Promise<string> {
  const head = await readHead(archive);
  if (compressionOf(head) === "none") return archive;
  const path = join(stagingDir, "archive.tar");
  const source = createReadStream(archive, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>;
  await pipeline(
    Readable.from(bounded(decompress(source), archive), { objectMode: false }),
    createWriteStream(path, { mode: 0o600 }),
    {
      ...(signal === undefined ? {} : { signal }),
    },
  );
  return path;
}

async function* bounded(source: AsyncIterable<Buffer>, archive: string): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const chunk of source) {
    bytes += chunk.length;
    if (bytes > imageLimits.layerMaxBytes) {
      throw new BelljarError("IMAGE_HOSTILE", `${archive} unpacks to more than ${imageLimits.layerMaxBytes} bytes`, {
        facts: { archive },
      });
    }
    yield chunk;
  }
}

/** First bytes of a file, for telling what it is. */
export async function readHead(path: string): Promise<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const head = Buffer.alloc(512);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return head.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
