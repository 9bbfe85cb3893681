/**
 * Reads a tar archive entry by entry: V7, ustar, GNU (long names, old sparse files) and PAX. Nothing is buffered but headers,
 * which are bounded. We read archives ourselves because the npm package decodes PAX values as UTF-8, which destroys binary
 * attributes (`security.capability`) and names in other encodings, and because what this reader accepts is written out again
 * in one plain form (tar-writer.ts), so that no later program can understand an entry differently from the checks here.
 */
import { imageLimits } from "../base/index.ts";
import { ByteReader } from "./byte-reader.ts";
import type { TarEntry, TarEntryKind, TarSegment, TarTime } from "./tar-entry.ts";
import {
  decodeHeader,
  decodePax,
  paxInteger,
  paxTime,
  type RawHeader,
  TAR_BLOCK_BYTES,
  TarFormatError,
} from "./tar-header.ts";
import { checkMap, parseListedMap, readMapInData, readOldGnuMap, type SparseMap } from "./tar-sparse.ts";

/** One `L`, `K`, `x` or `g` header: xattrs of 64 KiB each, and a path, fit many times. */
const EXTENSION_MAX_BYTES = 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

interface Extensions {
  longName?: string;
  longLink?: string;
  pax: Map<string, Buffer>;
  /** Joined from the repeated records of sparse format 0.0. */
  sparseList: string[];
}

export class TarReader {
  readonly #reader: ByteReader;
  #globals = new Map<string, Buffer>();
  /** Bytes of the present entry, and of its padding, that have not been read yet. */
  #bodyLeft = 0;
  #paddingLeft = 0;
  #sawEnd = false;

  constructor(source: AsyncIterable<Buffer>) {
    this.#reader = new ByteReader(source);
  }

  /** True once the archive's end marker was read; an archive without one may have been cut at a block boundary. */
  get sawEnd(): boolean {
    return this.#sawEnd;
  }

  /** Offset in the archive of what is read next: after `next`, of the entry's data. */
  get position(): number {
    return this.#reader.position;
  }

  /** The next entry; what is left of the last one's data is skipped. Undefined at the end of the archive. */
  async next(): Promise<TarEntry | undefined> {
    await this.#skip();
    const extensions: Extensions = { pax: new Map(), sparseList: [] };
    let pending = false;
    for (;;) {
      const block = await this.#reader.read(TAR_BLOCK_BYTES);
      if (block.length === 0 || isZero(block)) {
        if (pending) throw new TarFormatError("the archive ends after an extension header");
        if (block.length > 0) await this.#readEnd();
        return undefined;
      }
      if (block.length < TAR_BLOCK_BYTES) throw new TarFormatError("the archive ends within a header");
      const header = decodeHeader(block);
      if (!"LKxg".includes(header.type)) return await this.#entry(header, extensions);
      await this.#extension(header, extensions);
      pending = header.type !== "g";
    }
  }

  /** The stored data of the present entry (for a sparse file: its segments one after another). */
  async *body(): AsyncGenerator<Buffer> {
    while (this.#bodyLeft > 0) {
      const chunk = await this.#reader.readSome(Math.min(this.#bodyLeft, CHUNK_BYTES));
      if (chunk === undefined) throw new TarFormatError("the archive ends within the data of an entry");
      this.#bodyLeft -= chunk.length;
      yield chunk;
    }
  }

  /** Reads what comes after the end marker, so that a digest of the stream covers all of it. */
  async drain(): Promise<void> {
    while ((await this.#reader.readSome(CHUNK_BYTES)) !== undefined);
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }

  async #skip(): Promise<void> {
    const left = this.#bodyLeft + this.#paddingLeft;
    if ((await this.#reader.skip(left)) < left) {
      throw new TarFormatError("the archive ends within the data of an entry");
    }
    this.#bodyLeft = 0;
    this.#paddingLeft = 0;
  }

  async #readEnd(): Promise<void> {
    this.#sawEnd = true;
    const second = await this.#reader.read(TAR_BLOCK_BYTES);
    if (second.length > 0 && !isZero(second)) throw new TarFormatError("entries follow a lone block of zeros");
  }

  async #extension(header: RawHeader, into: Extensions): Promise<void> {
    if (header.size > EXTENSION_MAX_BYTES) {
      throw new TarFormatError(`an extension header has ${header.size} bytes; the limit is ${EXTENSION_MAX_BYTES}`);
    }
    this.#setBody(header.size);
    const data = await this.#reader.read(header.size);
    if (data.length < header.size) throw new TarFormatError("the archive ends within an extension header");
    this.#bodyLeft = 0;
    await this.#skip();
    if (header.type === "L") into.longName = untilNul(data);
    else if (header.type === "K") into.longLink = untilNul(data);
    else if (header.type === "x") collectPax(data, into);
    else this.#collectGlobals(data);
  }

  #collectGlobals(data: Buffer): void {
    for (const [key, value] of decodePax(data)) {
      if (/^(path|linkpath|size)$|^GNU\.sparse|\.xattr\./.test(key)) {
        throw new TarFormatError(`a global PAX header sets ${key} for every entry`);
      }
      this.#globals.set(key, Buffer.from(value));
      if (this.#globals.size > 256) throw new TarFormatError("global PAX headers have too many records");
    }
  }

  #setBody(bytes: number): void {
    if (bytes < 0 || bytes > Number.MAX_SAFE_INTEGER - TAR_BLOCK_BYTES)
      throw new TarFormatError("an entry has an impossible size");
    this.#bodyLeft = bytes;
    this.#paddingLeft = (TAR_BLOCK_BYTES - (bytes % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
  }

  async #entry(header: RawHeader, extensions: Extensions): Promise<TarEntry> {
    const pax = (key: string): string | undefined => {
      const value = extensions.pax.get(key) ?? this.#globals.get(key);
      return value === undefined || value.length === 0 ? undefined : value.toString("latin1");
    };
    const path = pax("GNU.sparse.name") ?? pax("path") ?? extensions.longName ?? header.name;
    const kind = kindOf(header, path);
    const linkTarget = pax("linkpath") ?? extensions.longLink ?? header.linkName;
    if (path.includes("\0") || linkTarget.includes("\0")) throw new TarFormatError("a name has a NUL character in it");
    if (path.length > imageLimits.pathMaxBytes || linkTarget.length > imageLimits.pathMaxBytes) {
      throw new TarFormatError(`a name is longer than ${imageLimits.pathMaxBytes} bytes`);
    }
    const size = integer(pax("size"), header.size, "size");
    const sparse = kind === "file" ? await this.#sparseMap(header, extensions, size, pax) : undefined;
    this.#setBody(size - (sparse?.mapBytes ?? 0));
    // Other programs read such data, or do not; what follows it would then be different archives to different programs.
    if (kind !== "file" && size !== 0) throw new TarFormatError(`a ${kind} entry has ${size} bytes of data`);
    const segments = sparse === undefined ? undefined : checkMap(sparse, this.#bodyLeft);
    return {
      path,
      kind,
      mode: header.mode & 0o7777,
      uid: integer(pax("uid"), header.uid, "uid"),
      gid: integer(pax("gid"), header.gid, "gid"),
      mtime: timeOf(pax("mtime"), header),
      linkTarget: kind === "hardLink" || kind === "symlink" ? linkTarget : "",
      deviceMajor: kind.endsWith("Device") ? header.deviceMajor : 0,
      deviceMinor: kind.endsWith("Device") ? header.deviceMinor : 0,
      sizeBytes: kind === "file" ? (sparse?.realSize ?? size) : 0,
      storedBytes: this.#bodyLeft,
      ...(segments === undefined ? {} : { segments: segments satisfies readonly TarSegment[] }),
      xattrs: xattrsOf(extensions.pax),
    };
  }

  async #sparseMap(
    header: RawHeader,
    extensions: Extensions,
    size: number,
    pax: (key: string) => string | undefined,
  ): Promise<SparseMap | undefined> {
    if (header.type === "S") return await readOldGnuMap(header, this.#reader);
    const realSize = pax("GNU.sparse.realsize") ?? pax("GNU.sparse.size");
    if (realSize === undefined) {
      if ([...extensions.pax.keys()].some((key) => key.startsWith("GNU.sparse"))) {
        throw new TarFormatError("a sparse file has no real size");
      }
      return undefined;
    }
    const real = paxInteger(realSize, "GNU.sparse size");
    const version = `${pax("GNU.sparse.major") ?? "0"}.${pax("GNU.sparse.minor") ?? "0"}`;
    if (version === "1.0") return await readMapInData(this.#reader, size, real);
    if (version !== "0.0" && version !== "0.1") throw new TarFormatError(`sparse format ${version} is not known`);
    return parseListedMap(pax("GNU.sparse.map") ?? extensions.sparseList.join(","), real);
  }
}

function isZero(block: Buffer): boolean {
  return block.every((byte) => byte === 0);
}

function untilNul(data: Buffer): string {
  const end = data.indexOf(0);
  return data.toString("latin1", 0, end === -1 ? data.length : end);
}

function collectPax(data: Buffer, into: Extensions): void {
  for (const [key, value] of decodePax(data)) {
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") into.sparseList.push(value.toString("latin1"));
    into.pax.set(key, Buffer.from(value));
  }
}

function kindOf(header: RawHeader, path: string): TarEntryKind {
  switch (header.type) {
    case "0":
      // V7 had no type for directories.
      return path.endsWith("/") ? "directory" : "file";
    case "7":
    case "S":
      return "file";
    case "1":
      return "hardLink";
    case "2":
      return "symlink";
    case "3":
      return "characterDevice";
    case "4":
      return "blockDevice";
    case "5":
      return "directory";
    case "6":
      return "fifo";
    default:
      throw new TarFormatError(`an entry has the unknown type ${JSON.stringify(header.type)}`);
  }
}

function integer(paxValue: string | undefined, headerValue: number, what: string): number {
  const value = paxValue === undefined ? headerValue : paxInteger(paxValue, what);
  if (value < 0) throw new TarFormatError(`the field ${what} is negative`);
  return value;
}

function timeOf(paxValue: string | undefined, header: RawHeader): TarTime {
  return paxValue === undefined ? { seconds: header.mtimeSeconds, nanoseconds: 0 } : paxTime(paxValue);
}

const SCHILY = "SCHILY.xattr.";
const LIBARCHIVE = "LIBARCHIVE.xattr.";

/** GNU tar and docker write SCHILY records; bsdtar writes both, its own with the name URL-encoded and the value in base64. */
function xattrsOf(pax: ReadonlyMap<string, Buffer>): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (const [key, value] of pax) {
    if (key.startsWith(LIBARCHIVE)) {
      const name = key
        .slice(LIBARCHIVE.length)
        .replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
      found.set(name, Buffer.from(value.toString("latin1"), "base64"));
    }
  }
  for (const [key, value] of pax) if (key.startsWith(SCHILY)) found.set(key.slice(SCHILY.length), value);
  for (const name of found.keys()) {
    if (name === "" || name.length > 255 || name.includes("\0"))
      throw new TarFormatError("an extended attribute has an impossible name");
  }
  return found;
}
