/**
 * The images of one root:
 *
 *   index.json, index.lock   names (image-index.ts)
 *   blobs/sha256/<hex>       manifests and configurations
 *   layers/<hex>.erofs       one per diff id, shared by images, immutable
 *   staging/                 work in progress (staging.ts)
 *   use.lock                 shared while files are added, exclusive while garbage is removed
 *
 * An image appears with its last step, the index; until then nothing of it is visible, and a process that dies before leaves
 * only what `collectGarbage` removes. Images that come with the guest image lie in a store of the same form, read-only, which
 * is looked at second: an image of this store with the same name wins.
 */
import { constants } from "node:fs";
import { link, mkdir, open, readdir, readFile, stat, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import {
  BelljarError,
  type Clock,
  hasErrno,
  imageLimits,
  isSystemError,
  type Log,
  systemClock,
  throwIfAborted,
} from "../base/index.ts";
import { acquireLock, syncDirectory, writeFileDurably } from "../store/index.ts";
import { type BuiltinOptions, builtinStoreDir, importBuiltins } from "./builtin.ts";
import { digestHex, digestOf, isDigest } from "./digest.ts";
import { parseDocument } from "./document.ts";
import { type ConfigDocument, decodeConfig, encodeConfig } from "./image-config.ts";
import { ArchiveFiles, DirectoryFiles } from "./image-files.ts";
import { ImageIndex, type ImageRecord } from "./image-index.ts";
import { type BuiltLayer, buildLayer, diskFull, type LayerInput } from "./layer-build.ts";
import { readDockerImage, readOciImage, type SourceImage } from "./manifest.ts";
import { fetchImage } from "./pull.ts";
import { parseReference, storedName } from "./reference.ts";
import { readRootfsArchive, readRootfsDirectory } from "./rootfs.ts";
import { detectKind } from "./source-kind.ts";
import { createStagingDir, removeOrphans, type StagingDir } from "./staging.ts";
import type {
  GarbageReport,
  ImageDetails,
  ImageInfo,
  ImageLayer,
  ImageStore,
  ImportOptions,
  PullOptions,
  ResolvedImage,
} from "./types.ts";

export interface ImageStoreDeps {
  /** `<root>/images`; made when it is not there. */
  readonly dir: string;
  readonly log: Log;
  readonly clock?: Clock;
  /** The directory of guest images, with which the built-in images come; without it there are none. */
  readonly guestDir?: string;
  /** Manifest digests of images that something needs; these are not removed without force. */
  readonly digestsInUse?: () => Promise<ReadonlySet<string>>;
}

interface Found {
  readonly name: string;
  readonly record: ImageRecord;
  readonly dir: string;
  readonly builtin: boolean;
}

/** Also removes what dead processes left in the store. */
export async function openImageStore(deps: ImageStoreDeps): Promise<ImageStore> {
  for (const part of ["", "blobs", "blobs/sha256", "layers", "staging"]) {
    await mkdir(join(deps.dir, part), { recursive: true, mode: 0o700 });
  }
  const store = new DiskImageStore(deps);
  await removeOrphans(join(deps.dir, "staging"));
  return store;
}

/**
 * Makes the built-in images of this host where they are missing or come from another guest image; part of set-up.
 * @throws BelljarError what `import` throws
 */
export async function prepareBuiltins(options: BuiltinOptions): Promise<ImageInfo[]> {
  const store = await openImageStore({ dir: builtinStoreDir(options.guestDir), log: options.log });
  return await importBuiltins(store, options);
}

class DiskImageStore implements ImageStore {
  readonly #deps: ImageStoreDeps;
  readonly #clock: Clock;
  readonly #index: ImageIndex;

  constructor(deps: ImageStoreDeps) {
    this.#deps = deps;
    this.#clock = deps.clock ?? systemClock;
    this.#index = new ImageIndex(deps.dir);
  }

  async import(path: string, options: ImportOptions = {}): Promise<ImageInfo> {
    // Before any work: a name that is wrong is wrong at once.
    const given = options.name === undefined ? undefined : storedName(parseReference(options.name));
    const source = options.source ?? path;
    return await this.#adding(`the import of ${path}`, options.signal, async (staging, signal) => {
      options.progress?.("reading");
      const { kind, isDirectory } = await detectKind(path, options.kind ?? "auto");
      if (kind === "rootfs") {
        const input: LayerInput = {
          label: `root file system ${path}`,
          open: () => (isDirectory ? readRootfsDirectory(path) : readRootfsArchive(path)),
        };
        return await this.#addRootfs(given ?? suggestName(path, undefined), source, input, options, staging, signal);
      }
      const files = isDirectory
        ? new DirectoryFiles(path)
        : await ArchiveFiles.open(path, await staging.makeDir(), signal);
      const image = kind === "docker-archive" ? await readDockerImage(files) : await readOciImage(files);
      const name = given ?? suggestName(path, image.name);
      return await this.#addImage(name, source, image, staging, signal, options.progress);
    });
  }

  async pull(reference: string, options: PullOptions = {}): Promise<ImageInfo> {
    const parsed = parseReference(reference);
    const name = storedName(options.name === undefined ? parsed : parseReference(options.name));
    return await this.#adding(`the pull of ${reference}`, options.signal, async (staging, signal) => {
      options.progress?.("fetching");
      const access = { plainHttp: options.plainHttp ?? false, authFile: options.authFile, signal };
      const image = await fetchImage(parsed, staging.path, access);
      return await this.#addImage(name, reference, image, staging, signal, options.progress);
    });
  }

  async list(): Promise<ImageInfo[]> {
    const all: ImageInfo[] = [];
    const seen = new Set<string>();
    for await (const found of this.#all()) {
      if (seen.has(found.name)) continue;
      seen.add(found.name);
      all.push(await this.#info(found));
    }
    return all.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async inspect(name: string): Promise<ImageDetails> {
    const found = await this.#find(name);
    const { architecture, os, config } = await this.#config(found);
    const layers = await this.#layers(found);
    return { ...(await this.#info(found)), architecture, os, config, layers, source: found.record.source };
  }

  async resolve(name: string): Promise<ResolvedImage> {
    const found = await this.#find(name);
    const { config } = await this.#config(found);
    return { name: found.name, digest: found.record.manifestDigest, config, layers: await this.#layers(found) };
  }

  async remove(name: string, options: { readonly force?: boolean } = {}): Promise<void> {
    const found = await this.#find(name);
    if (found.builtin) {
      throw new BelljarError(
        "INVALID_ARGUMENT",
        `the image ${found.name} comes with the guest image and cannot be removed`,
        { facts: { image: found.name } },
      );
    }
    const digest = found.record.manifestDigest;
    if (options.force !== true && (await this.#deps.digestsInUse?.())?.has(digest) === true) {
      throw new BelljarError("IMAGE_IN_USE", `the image ${found.name} is used by a sandbox`, {
        facts: { image: found.name, digest },
        remedy: "Remove the sandbox first, or remove the image with force.",
      });
    }
    await this.#index.change((records) => {
      records.delete(found.name);
    });
    await this.#collect(0);
  }

  async collectGarbage(): Promise<GarbageReport> {
    const stagingRemoved = await removeOrphans(join(this.#deps.dir, "staging"));
    return { ...(await this.#collect(imageLimits.indexLockTimeoutMs)), stagingRemoved };
  }

  /** The frame of every addition: time limit, lock against removal, staging directory, and errors that name the disk. */
  async #adding<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (staging: StagingDir, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(signal);
    if (process.geteuid?.() !== 0) {
      throw new BelljarError(
        "PERMISSION_DENIED",
        "adding an image needs root: its files must be made with their owners and devices",
      );
    }
    const controller = new AbortController();
    const forward = (): void => controller.abort(signal?.reason);
    signal?.addEventListener("abort", forward, { once: true });
    const timer = setTimeout(
      () =>
        controller.abort(
          new BelljarError("DEADLINE_EXCEEDED", `${what} did not end within ${imageLimits.timeoutMs} ms`),
        ),
      imageLimits.timeoutMs,
    );
    try {
      const lock = {
        mode: "shared",
        timeoutMs: imageLimits.indexLockTimeoutMs,
        what: "the image store",
        signal: controller.signal,
      } as const;
      await using _lock = await acquireLock(join(this.#deps.dir, "use.lock"), lock);
      await using staging = await createStagingDir(join(this.#deps.dir, "staging"));
      return await work(staging, controller.signal);
    } catch (error) {
      // Layers that were stored before the index was not.
      await this.#collect(0).catch((problem: unknown) =>
        this.#deps.log.warn("images: garbage is left", { problem: String(problem) }),
      );
      if (isSystemError(error) && (error.code === "ENOSPC" || error.code === "EDQUOT"))
        throw diskFull(this.#deps.dir, error);
      if (controller.signal.aborted && !(error instanceof BelljarError)) throwIfAborted(controller.signal);
      throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", forward);
    }
  }

  async #addImage(
    name: string,
    source: string,
    image: SourceImage,
    staging: StagingDir,
    signal: AbortSignal,
    progress: ((step: string) => void) | undefined,
  ): Promise<ImageInfo> {
    const built: BuiltLayer[] = [];
    const ready = new Set<string>();
    for (const [index, layer] of image.layers.entries()) {
      const layers = image.layers.length;
      const present = ready.has(layer.diffId) || (await isThere(this.#layerPath(layer.diffId)));
      progress?.(`layer ${index + 1} of ${layers}${present ? ", here already" : ""}`);
      ready.add(layer.diffId);
      if (present) continue;
      const label = `layer ${index + 1} of ${layers} (${layer.blob?.digest ?? layer.diffId})`;
      const input = {
        label,
        open: () => layer.file.read(),
        diffId: layer.diffId,
        ...(layer.blob === undefined ? {} : { blob: layer.blob }),
      };
      built.push(await buildLayer(input, await staging.makeDir(), signal));
    }
    const manifest = image.manifestData ?? madeManifest(image.configData, image.config.diffIds, built);
    return await this.#publish(
      name,
      source,
      { manifest, config: image.configData, document: image.config },
      built,
      signal,
      progress,
    );
  }

  async #addRootfs(
    name: string,
    source: string,
    input: LayerInput,
    options: ImportOptions,
    staging: StagingDir,
    signal: AbortSignal,
  ): Promise<ImageInfo> {
    options.progress?.("layer 1 of 1");
    const built = [await buildLayer(input, await staging.makeDir(), signal)];
    const diffIds = built.map((layer) => layer.diffId);
    const config = encodeConfig(options.config ?? {}, diffIds);
    const document = decodeConfig(parseDocument(config, "the configuration given"));
    return await this.#publish(
      name,
      source,
      { manifest: madeManifest(config, diffIds, built), config, document },
      built,
      signal,
      options.progress,
    );
  }

  async #publish(
    name: string,
    source: string,
    image: { readonly manifest: Buffer; readonly config: Buffer; readonly document: ConfigDocument },
    built: readonly BuiltLayer[],
    signal: AbortSignal,
    progress: ((step: string) => void) | undefined,
  ): Promise<ImageInfo> {
    throwIfAborted(signal);
    progress?.("storing");
    for (const layer of built) await publishLayer(layer, this.#layerPath(layer.diffId));
    const record: ImageRecord = {
      manifestDigest: digestOf(image.manifest),
      configDigest: digestOf(image.config),
      diffIds: image.document.diffIds,
      createdAt: image.document.createdAt,
      addedAtMs: Math.floor(this.#clock.nowMs()),
      source,
    };
    for (const document of [image.manifest, image.config])
      await writeFileDurably(this.#blobPath(this.#deps.dir, digestOf(document)), document);
    await this.#index.change((records) => {
      records.set(name, record);
    }, signal);
    this.#deps.log.info("image added", { image: name, digest: record.manifestDigest, layers: record.diffIds.length });
    return await this.#info({ name, record, dir: this.#deps.dir, builtin: false });
  }

  async #collect(lockTimeoutMs: number): Promise<Omit<GarbageReport, "stagingRemoved">> {
    let layersRemoved = 0;
    let bytesFreed = 0;
    try {
      const lock = { mode: "exclusive", timeoutMs: lockTimeoutMs, what: "the image store" } as const;
      await using _lock = await acquireLock(join(this.#deps.dir, "use.lock"), lock);
      const records = [...(await this.#index.read()).values()];
      const layers = new Set(records.flatMap((record) => record.diffIds.map((diffId) => `${digestHex(diffId)}.erofs`)));
      const blobs = new Set(
        records.flatMap((record) => [digestHex(record.manifestDigest), digestHex(record.configDigest)]),
      );
      bytesFreed += await removeOthers(join(this.#deps.dir, "blobs/sha256"), blobs, () => {});
      bytesFreed += await removeOthers(join(this.#deps.dir, "layers"), layers, () => {
        layersRemoved += 1;
      });
    } catch (error) {
      // Somebody is adding an image; the next removal, or the next start, collects.
      if (!(error instanceof BelljarError) || error.reason !== "LOCKED") throw error;
      this.#deps.log.debug("images: garbage is left for later", { why: error.message });
    }
    return { layersRemoved, bytesFreed };
  }

  async *#all(): AsyncGenerator<Found> {
    for (const [name, record] of await this.#index.read()) yield { name, record, dir: this.#deps.dir, builtin: false };
    if (this.#deps.guestDir === undefined) return;
    const dir = builtinStoreDir(this.#deps.guestDir);
    for (const [name, record] of await new ImageIndex(dir).read()) yield { name, record, dir, builtin: true };
  }

  async #find(wanted: string): Promise<Found> {
    const found =
      (await this.#lookUp(wanted)) ?? ((await this.#prepareBuiltins()) ? await this.#lookUp(wanted) : undefined);
    if (found !== undefined) return found;
    throw new BelljarError("IMAGE_NOT_FOUND", `there is no image ${JSON.stringify(wanted)}`, {
      facts: { image: wanted },
      ...(HEX_PREFIX.test(wanted)
        ? {}
        : { remedy: `See \`belljar image ls\`, or get it with \`belljar image pull ${wanted}\`.` }),
    });
  }

  /** Where set-up did not make the built-in images, the first one who misses an image does. */
  async #prepareBuiltins(): Promise<boolean> {
    const { guestDir, log } = this.#deps;
    if (guestDir === undefined || process.geteuid?.() !== 0) return false;
    return (await prepareBuiltins({ guestDir, log })).length > 0;
  }

  async #lookUp(wanted: string): Promise<Found | undefined> {
    const all: Found[] = [];
    for await (const found of this.#all()) all.push(found);
    const reference = isDigest(wanted) || HEX_PREFIX.test(wanted) ? undefined : parseReference(wanted);
    const byName = reference === undefined ? undefined : all.find((found) => matches(found, reference));
    if (byName !== undefined) return byName;
    const prefix = wanted.startsWith("sha256:") ? wanted : `sha256:${wanted}`;
    const byDigest = all.filter(
      ({ record }) => record.manifestDigest.startsWith(prefix) || record.configDigest.startsWith(prefix),
    );
    const [first] = byDigest;
    if (first !== undefined && (isDigest(wanted) || HEX_PREFIX.test(wanted)) && sameImage(byDigest)) return first;
    // Twelve hexadecimal digits may be a name after all.
    const asName =
      reference === undefined && !isDigest(wanted)
        ? all.find((found) => matches(found, parseReference(wanted)))
        : undefined;
    return asName;
  }

  async #info({ name, record, dir, builtin }: Found): Promise<ImageInfo> {
    const layers = await this.#layers({ name, record, dir, builtin });
    return {
      name,
      digest: record.manifestDigest,
      configDigest: record.configDigest,
      layerCount: layers.length,
      sizeBytes: layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
      createdAt: record.createdAt,
      addedAtMs: record.addedAtMs,
      builtin,
    };
  }

  async #layers({ name, record, dir }: Found): Promise<ImageLayer[]> {
    const layers: ImageLayer[] = [];
    for (const diffId of record.diffIds) {
      const path = join(dir, "layers", `${digestHex(diffId)}.erofs`);
      try {
        // Blocks, not size: holes take no room.
        layers.push({ diffId, path, sizeBytes: (await stat(path)).blocks * 512 });
      } catch (error) {
        if (!hasErrno(error, "ENOENT")) throw error;
        throw missingPart(name, path, error);
      }
    }
    return layers;
  }

  async #config({ name, record, dir }: Found): Promise<ConfigDocument> {
    const path = this.#blobPath(dir, record.configDigest);
    const data = await readFile(path).catch((error: unknown) => {
      throw hasErrno(error, "ENOENT") ? missingPart(name, path, error) : error;
    });
    if (digestOf(data) !== record.configDigest) throw missingPart(name, path, undefined);
    return decodeConfig(parseDocument(data, `configuration ${record.configDigest}`));
  }

  #layerPath(diffId: string): string {
    return join(this.#deps.dir, "layers", `${digestHex(diffId)}.erofs`);
  }

  #blobPath(dir: string, digest: string): string {
    return join(dir, "blobs/sha256", digestHex(digest));
  }
}

const HEX_PREFIX = /^(?:sha256:)?[0-9a-f]{12,64}$/;

/** By stored name; a digest beside a tag must fit too. A name with a digest alone also finds an image stored under a tag. */
function matches({ name, record }: Found, wanted: ReturnType<typeof parseReference>): boolean {
  if (storedName(wanted) === name)
    return wanted.digest === undefined || wanted.tag === undefined || record.manifestDigest === wanted.digest;
  if (wanted.digest === undefined || wanted.tag !== undefined || record.manifestDigest !== wanted.digest) return false;
  const stored = parseReference(name);
  return stored.registry === wanted.registry && stored.repository === wanted.repository;
}

function sameImage(found: readonly Found[]): boolean {
  return found.every(({ record }) => record.manifestDigest === found[0]?.record.manifestDigest);
}

/** The name that the source gives itself, or one made of its file's name. */
function suggestName(path: string, said: string | undefined): string {
  const file = basename(path)
    .toLowerCase()
    .replace(/(?:\.(?:tar|tgz|oci|docker|gz|zst|xz|bz2))+$/, "");
  // An OCI layout often says only the tag.
  const candidates =
    said === undefined ? [file] : said.includes("/") || said.includes(":") ? [said, file] : [`${file}:${said}`, file];
  for (const candidate of candidates) {
    try {
      return storedName(parseReference(candidate));
    } catch (error) {
      if (!(error instanceof BelljarError)) throw error;
    }
  }
  throw new BelljarError("INVALID_ARGUMENT", `${path} says no name for the image, and its own cannot be one`, {
    remedy: "Give the image a name.",
  });
}

/** A manifest for a source that had none, in OCI form: uncompressed layers, whose digests are their diff ids. */
function madeManifest(config: Buffer, diffIds: readonly string[], built: readonly BuiltLayer[]): Buffer {
  const sizes = new Map(built.map((layer) => [layer.diffId, layer.tarBytes]));
  const layers = diffIds.map((diffId) => ({
    mediaType: "application/vnd.oci.image.layer.v1.tar",
    digest: diffId,
    size: sizes.get(diffId) ?? 0,
  }));
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: digestOf(config), size: config.length },
    layers,
  };
  return Buffer.from(JSON.stringify(manifest));
}

/** A link, not a rename: of two imports of one layer the first one's file stays, and whoever has it open shares it. */
async function publishLayer(layer: BuiltLayer, path: string): Promise<void> {
  const file = await open(layer.path, constants.O_RDONLY);
  try {
    await file.chmod(0o400);
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    await link(layer.path, path);
  } catch (error) {
    if (!hasErrno(error, "EEXIST")) throw error;
  }
  await syncDirectory(dirname(path));
}

async function removeOthers(directory: string, keep: ReadonlySet<string>, removed: () => void): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory)) {
    if (keep.has(name)) continue;
    const path = join(directory, name);
    bytes += (await stat(path)).blocks * 512;
    await unlink(path);
    removed();
  }
  return bytes;
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

function missingPart(name: string, path: string, cause: unknown): BelljarError {
  return new BelljarError("STATE_CORRUPT", `the image ${name} is damaged: ${path} is not what it was`, {
    facts: { image: name, path },
    remedy: "Remove the image and get it again.",
    cause,
  });
}
