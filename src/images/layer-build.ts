/**
 * Makes one read-only EROFS image of one layer:
 *
 *   blob -> digest -> decompress -> diff id -> TarReader -> LayerTree (rules) -> plain tar -> GNU tar -> mkfs.erofs
 *
 * The result depends on the layer alone: same diff id, same bytes. Of an image's layers one is packed while the next is unpacked.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, imageLimits, throwIfAborted } from "../base/index.ts";
import { decompress } from "./decompress.ts";
import { Meter } from "./digest.ts";
import { extract } from "./layer-extract.ts";
import { packDirectory } from "./layer-pack.ts";
import { type DirectoryAttributes, IMPLICIT_DIRECTORY, LayerRuleError, LayerTree } from "./layer-tree.ts";
import { shownName, type TarEntry } from "./tar-entry.ts";
import { TarFormatError } from "./tar-header.ts";
import { TarReader } from "./tar-reader.ts";
import { encodeEntryHead, padding, TAR_END } from "./tar-writer.ts";

export interface LayerInput {
  /** For messages: "layer 2 of 3 (sha256:...)". */
  readonly label: string;
  /** The blob as it came, compressed or not. */
  open(): AsyncIterable<Buffer>;
  /** What the blob must be, where something says so. */
  readonly blob?: { readonly digest: string; readonly sizeBytes: number };
  /** What the uncompressed archive must be, where something says so. */
  readonly diffId?: string;
}

export interface BuiltLayer {
  readonly diffId: string;
  /** The EROFS image, synced and read-only, in a staging directory. */
  readonly path: string;
  /** Of the uncompressed archive. */
  readonly tarBytes: number;
}

/** A layer with more bytes in holes than this is packed in chunks, so that the holes are never written out. */
const HOLES_BYTES = 16 * 1024 * 1024;
/** To look for zeros costs as much as to copy the layer: they must be worth it. */
const ZEROS_BYTES = 1024 * 1024;
const ZERO_PAGE = Buffer.alloc(4096);

interface UnpackedLayer {
  readonly root: string;
  readonly diffId: string;
  readonly tarBytes: number;
  readonly holeBytes: number;
  /** About how much of the data is zeros. */
  readonly zeroBytes: number;
}

/**
 * Builds layers in their order, each in a directory that `makeDir` makes for it.
 * @throws BelljarError `IMAGE_HOSTILE`, `IMAGE_INVALID`, `PERMISSION_DENIED`, `DISK_FULL`, `CANCELLED`, `HOST_TOOL_*`
 */
export async function buildLayers(
  inputs: AsyncIterable<LayerInput> | Iterable<LayerInput>,
  makeDir: () => Promise<string>,
  signal?: AbortSignal,
): Promise<BuiltLayer[]> {
  const built: BuiltLayer[] = [];
  const failure = new AbortController();
  const either = signal === undefined ? failure.signal : AbortSignal.any([signal, failure.signal]);
  let packing: Promise<BuiltLayer> | undefined;
  try {
    for await (const input of inputs) {
      const dir = await makeDir();
      const unpacked = await unpackLayer(input, dir, either);
      if (packing !== undefined) built.push(await packing);
      packing = packLayer(unpacked, dir, either);
      // With it ends the unpacking beside it, and its error is the one to tell.
      packing.catch((error: unknown) => failure.abort(error));
    }
    if (packing !== undefined) built.push(await packing);
    return built;
  } catch (error) {
    failure.abort(error);
    // Nobody may remove the directory under it.
    await packing?.catch(() => {});
    throw error;
  }
}

/** @throws what `buildLayers` throws */
export async function buildLayer(input: LayerInput, stagingDir: string, signal?: AbortSignal): Promise<BuiltLayer> {
  return await packLayer(await unpackLayer(input, stagingDir, signal), stagingDir, signal);
}

async function unpackLayer(input: LayerInput, stagingDir: string, signal?: AbortSignal): Promise<UnpackedLayer> {
  const root = join(stagingDir, "root");
  await mkdir(root, { mode: 0o700 });
  return { root, ...(await new LayerUnpacking(input).run(root, signal)) };
}

async function packLayer(unpacked: UnpackedLayer, stagingDir: string, signal?: AbortSignal): Promise<BuiltLayer> {
  throwIfAborted(signal);
  const { root, diffId, tarBytes, holeBytes, zeroBytes } = unpacked;
  const path = join(stagingDir, "layer.erofs");
  const hasHoles = holeBytes > HOLES_BYTES;
  await packDirectory({ root, path, diffId, hasHoles, hasZeros: holeBytes + zeroBytes > ZEROS_BYTES }, signal);
  return { diffId, path, tarBytes };
}

class LayerUnpacking {
  readonly #input: LayerInput;
  /** Hashed where a digest is to be compared; what is not compressed is hashed as an archive already. */
  readonly #blobMeter: Meter;
  readonly #tarMeter = new Meter();
  readonly #tree = new LayerTree();
  /** The entry being read, for messages. */
  #current: string | undefined;
  #entries = 0;
  #contentBytes = 0;
  #holeBytes = 0;
  /** In data that is not in holes yet. */
  #zeroBytes = 0;

  constructor(input: LayerInput) {
    this.#input = input;
    this.#blobMeter = new Meter(input.blob !== undefined && input.blob.digest !== input.diffId);
  }

  async run(root: string, signal?: AbortSignal): Promise<Omit<UnpackedLayer, "root">> {
    await extract(root, this.#plainArchive(), signal);
    const diffId = this.#tarMeter.digest();
    this.#checkDigests(diffId);
    // Once more, directories alone: filling them changed their times, and some became opaque after they were made.
    await extract(root, this.#directoriesArchive(), signal);
    const { bytes } = this.#tarMeter;
    return { diffId, tarBytes: bytes, holeBytes: this.#holeBytes, zeroBytes: this.#zeroBytes };
  }

  async *#plainArchive(): AsyncGenerator<Buffer> {
    const raw = this.#blobMeter.through(this.#input.open());
    const reader = new TarReader(this.#bounded(this.#tarMeter.through(decompress(raw))));
    try {
      yield* this.#entriesOf(reader);
    } catch (error) {
      throw this.#explain(error);
    } finally {
      await reader.close();
    }
  }

  async *#entriesOf(reader: TarReader): AsyncGenerator<Buffer> {
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      this.#current = entry.path;
      this.#countEntry(entry);
      const placement = this.#tree.place(entry);
      for (const path of placement.newDirectories) yield encodeEntryHead(directoryEntry(path, IMPLICIT_DIRECTORY));
      if (placement.write === undefined) continue;
      yield encodeEntryHead(forTar(entry, placement.write));
      if (entry.kind !== "file") continue;
      for await (const piece of reader.body()) {
        this.#zeroBytes += zerosIn(piece);
        yield piece;
      }
      yield padding(entry.storedBytes);
    }
    await reader.drain();
    if (!reader.sawEnd && this.#input.diffId === undefined && this.#input.blob === undefined) {
      throw new TarFormatError("the archive has no end marker: it was cut off");
    }
    for (const link of this.#tree.pendingLinks()) yield encodeEntryHead(forTar(link, link.path));
    for (const { path, node } of this.#tree.directories()) {
      for (const name of node.whiteouts) {
        // A name that the layer has itself hides what is below it anyway; a directory must also hide its lower content.
        const own = node.children.get(name);
        if (own === undefined) yield encodeEntryHead(whiteoutEntry(path === "" ? name : `${path}/${name}`));
        else if (own.kind === "directory") own.opaque = true;
      }
    }
    yield TAR_END;
  }

  async *#directoriesArchive(): AsyncGenerator<Buffer> {
    for (const { path, node } of this.#tree.directories()) {
      const attributes = node.attributes ?? IMPLICIT_DIRECTORY;
      const xattrs = node.opaque
        ? new Map([...attributes.xattrs, ["trusted.overlay.opaque", Buffer.from("y")] as const])
        : attributes.xattrs;
      yield encodeEntryHead(directoryEntry(path, { ...attributes, xattrs }));
    }
    yield TAR_END;
  }

  #countEntry(entry: TarEntry): void {
    this.#entries += 1;
    this.#contentBytes += entry.sizeBytes;
    this.#holeBytes += entry.sizeBytes - entry.storedBytes;
    if (this.#entries > imageLimits.entriesMax)
      throw new LayerRuleError(`the layer has more than ${imageLimits.entriesMax} entries`);
    if (this.#contentBytes > imageLimits.layerMaxBytes) {
      throw new LayerRuleError(`the files of the layer would take more than ${imageLimits.layerMaxBytes} bytes`);
    }
  }

  /** Ends a bomb while it goes off. */
  async *#bounded(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      const bytes = this.#tarMeter.bytes;
      if (bytes > imageLimits.layerMaxBytes)
        throw new LayerRuleError(`the layer unpacks to more than ${imageLimits.layerMaxBytes} bytes`);
      if (bytes > imageLimits.expansionFreeBytes && bytes > this.#blobMeter.bytes * imageLimits.expansionRatioMax) {
        throw new LayerRuleError(`the layer unpacks to more than ${imageLimits.expansionRatioMax} times its size`);
      }
      yield chunk;
    }
  }

  #checkDigests(diffId: string): void {
    const { blob, label } = this.#input;
    if (blob !== undefined) {
      if (this.#blobMeter.bytes !== blob.sizeBytes) {
        throw new BelljarError(
          "IMAGE_INVALID",
          `${label} has ${this.#blobMeter.bytes} bytes, not ${blob.sizeBytes} as the manifest says`,
          {
            facts: { layer: label, sizeBytes: this.#blobMeter.bytes, expectedBytes: blob.sizeBytes },
          },
        );
      }
      const digest = blob.digest === this.#input.diffId ? diffId : this.#blobMeter.digest();
      this.#compare("digest", digest, blob.digest);
    }
    if (this.#input.diffId !== undefined) this.#compare("diff id", diffId, this.#input.diffId);
  }

  #compare(what: string, actual: string, expected: string): void {
    if (actual === expected) return;
    const label = this.#input.label;
    throw new BelljarError("IMAGE_INVALID", `the ${what} of ${label} is ${actual}, not ${expected}`, {
      facts: { layer: label, actual, expected },
    });
  }

  #explain(error: unknown): unknown {
    const layer = this.#input.label;
    const entry = this.#current === undefined ? undefined : shownName(this.#current);
    const facts = { layer, ...(entry === undefined ? {} : { entry }) };
    if (error instanceof LayerRuleError) {
      return new BelljarError("IMAGE_HOSTILE", `${layer}: entry ${entry ?? "(none)"} is refused: ${error.message}`, {
        facts,
      });
    }
    if (error instanceof TarFormatError) {
      // Before the first entry there is nothing that lies: it is just not an archive.
      if (entry === undefined)
        return new BelljarError("IMAGE_INVALID", `${layer} is not a tar archive: ${error.message}`, { facts });
      return new BelljarError("IMAGE_HOSTILE", `${layer}: at or after entry ${entry}: ${error.message}`, { facts });
    }
    if (error instanceof BelljarError && error.reason === "IMAGE_INVALID") {
      return new BelljarError("IMAGE_INVALID", `${layer}: ${error.message}`, {
        facts: { ...error.facts, ...facts },
        cause: error.cause,
      });
    }
    return error;
  }
}

/** In pieces of a page, or what is left of one, as far as they are zeros from end to end. */
function zerosIn(data: Buffer): number {
  let bytes = 0;
  for (let at = 0; at < data.length; at += ZERO_PAGE.length) {
    if (data[at] !== 0) continue;
    const piece = data.subarray(at, at + ZERO_PAGE.length);
    if (piece.equals(ZERO_PAGE.subarray(0, piece.length))) bytes += piece.length;
  }
  return bytes;
}

/** Every name starts with `./`: a name that starts with a dash or has odd characters stays a name. */
function forTar(entry: TarEntry, path: string): TarEntry {
  return {
    ...entry,
    path: `./${path}`,
    linkTarget: entry.kind === "hardLink" ? `./${cleanTarget(entry.linkTarget)}` : entry.linkTarget,
  };
}

function cleanTarget(target: string): string {
  return target
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/");
}

const plainEntry = { linkTarget: "", deviceMajor: 0, deviceMinor: 0, sizeBytes: 0, storedBytes: 0 } as const;

function directoryEntry(path: string, attributes: DirectoryAttributes): TarEntry {
  return { ...plainEntry, ...attributes, path: path === "" ? "./" : `./${path}/`, kind: "directory" };
}

/** How overlayfs writes "nothing here": a character device 0/0. */
function whiteoutEntry(path: string): TarEntry {
  return { ...plainEntry, ...IMPLICIT_DIRECTORY, mode: 0, path: `./${path}`, kind: "characterDevice" };
}
