/**
 * Adds images to a store: from files on this host, or pulled from a registry. An image appears with its last step, the index; until
 * then nothing of it is visible, and a process that dies before leaves only what garbage collection removes.
 */
import { link, stat } from "node:fs/promises";
import {
  BelljarError,
  type Clock,
  hasErrno,
  imageLimits,
  isSystemError,
  type Log,
  throwIfAborted,
} from "../base/index.ts";
import { acquireLock, syncDirectory, writeFileDurably } from "../store/index.ts";
import { digestOf } from "./digest.ts";
import { parseDocument } from "./document.ts";
import { type ConfigDocument, decodeConfig, encodeConfig } from "./image-config.ts";
import { ArchiveFiles, DirectoryFiles } from "./image-files.ts";
import type { ImageIndex, ImageRecord } from "./image-index.ts";
import type { FoundImage } from "./image-lookup.ts";
import { suggestName } from "./image-names.ts";
import { type BuiltLayer, buildLayer, buildLayers, type LayerInput } from "./layer-build.ts";
import { diskFull } from "./layer-pack.ts";
import type { StoreLayout } from "./layout.ts";
import { readDockerImage, readOciImage, type SourceImage } from "./manifest.ts";
import { fetchImage } from "./pull.ts";
import { parseReference, storedName } from "./reference.ts";
import { readRootfsArchive, readRootfsDirectory } from "./rootfs.ts";
import { detectKind } from "./source-kind.ts";
import { createStagingDir, type StagingDir } from "./staging.ts";
import type { ImportOptions, PullOptions } from "./types.ts";

export interface AdditionDeps {
  readonly layout: StoreLayout;
  readonly index: ImageIndex;
  readonly clock: Clock;
  readonly log: Log;
  /** Removes what an addition that failed has stored already. */
  readonly collectGarbage: () => Promise<unknown>;
}

export class ImageAddition {
  readonly #deps: AdditionDeps;

  constructor(deps: AdditionDeps) {
    this.#deps = deps;
  }

  async import(path: string, options: ImportOptions = {}): Promise<FoundImage> {
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

  async pull(reference: string, options: PullOptions = {}): Promise<FoundImage> {
    const parsed = parseReference(reference);
    const name = storedName(options.name === undefined ? parsed : parseReference(options.name));
    return await this.#adding(`the pull of ${reference}`, options.signal, async (staging, signal) => {
      options.progress?.("fetching");
      const access = { plainHttp: options.plainHttp ?? false, authFile: options.authFile, signal };
      const image = await fetchImage(parsed, staging.path, access);
      return await this.#addImage(name, reference, image, staging, signal, options.progress);
    });
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
      await using _lock = await acquireLock(this.#deps.layout.useLock, lock);
      await using staging = await createStagingDir(this.#deps.layout.stagingDir);
      return await work(staging, controller.signal);
    } catch (error) {
      // Layers that were stored before the index was not.
      await this.#deps
        .collectGarbage()
        .catch((problem: unknown) => this.#deps.log.warn("images: garbage is left", { problem: String(problem) }));
      if (isSystemError(error) && (error.code === "ENOSPC" || error.code === "EDQUOT"))
        throw diskFull(this.#deps.layout.dir, error);
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
  ): Promise<FoundImage> {
    const layerPath = (diffId: string): string => this.#deps.layout.layer(diffId);
    const built = await buildLayers(missingLayers(image, layerPath, progress), () => staging.makeDir(), signal);
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
  ): Promise<FoundImage> {
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
  ): Promise<FoundImage> {
    throwIfAborted(signal);
    progress?.("storing");
    for (const layer of built) await publishLayer(layer, this.#deps.layout.layer(layer.diffId));
    if (built.length > 0) await syncDirectory(this.#deps.layout.layersDir);
    const record: ImageRecord = {
      manifestDigest: digestOf(image.manifest),
      configDigest: digestOf(image.config),
      diffIds: image.document.diffIds,
      createdAt: image.document.createdAt,
      addedAtMs: Math.floor(this.#deps.clock.nowMs()),
      source,
    };
    for (const document of [image.manifest, image.config])
      await writeFileDurably(this.#deps.layout.blob(digestOf(document)), document);
    await this.#deps.index.change((records) => {
      records.set(name, record);
    }, signal);
    this.#deps.log.info("image added", { image: name, digest: record.manifestDigest, layers: record.diffIds.length });
    return { name, record, layout: this.#deps.layout, builtin: false };
  }
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
  try {
    await link(layer.path, path);
  } catch (error) {
    if (!hasErrno(error, "EEXIST")) throw error;
  }
}

/** Those of an image's layers that the store does not have. */
async function* missingLayers(
  image: SourceImage,
  layerPath: (diffId: string) => string,
  progress: ((step: string) => void) | undefined,
): AsyncGenerator<LayerInput> {
  const ready = new Set<string>();
  for (const [index, layer] of image.layers.entries()) {
    const layers = image.layers.length;
    const present = ready.has(layer.diffId) || (await isThere(layerPath(layer.diffId)));
    progress?.(`layer ${index + 1} of ${layers}${present ? ", here already" : ""}`);
    ready.add(layer.diffId);
    if (present) continue;
    yield {
      label: `layer ${index + 1} of ${layers} (${layer.blob?.digest ?? layer.diffId})`,
      open: () => layer.file.read(),
      diffId: layer.diffId,
      ...(layer.blob === undefined ? {} : { blob: layer.blob }),
    };
  }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
