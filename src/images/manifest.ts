/**
 * From the files of an image to what has to be unpacked: the platform's manifest, its configuration and its layers. Each
 * document is read once and checked against the digest and size by which it was referred to.
 */
import { BelljarError, imageLimits } from "../base/index.ts";
import { digestHex, digestOf, isDigest } from "./digest.ts";
import { type Fields, parseDocument } from "./document.ts";
import { type ConfigDocument, decodeConfig } from "./image-config.ts";
import { type ImageFile, type ImageFiles, readDocumentFile } from "./image-files.ts";

export interface SourceLayer {
  readonly diffId: string;
  readonly file: ImageFile;
  /** Absent where nothing says what the blob must be (docker-archive); the diff id holds all the same. */
  readonly blob?: { readonly digest: string; readonly sizeBytes: number };
}

export interface SourceImage {
  /** What the source calls the image, where it does; anybody's text. */
  readonly name?: string;
  readonly config: ConfigDocument;
  readonly configData: Buffer;
  /** As the source has it; absent where it has none. */
  readonly manifestData?: Buffer;
  readonly layers: readonly SourceLayer[];
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly sizeBytes: number;
  /** `linux/amd64`, `linux/arm/v7`; empty where the descriptor does not say. */
  readonly platform: string;
  readonly refName: string;
}

const INDEX_TYPES = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
];
const LAYER_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer\.v1\.tar|docker\.image\.rootfs\.diff\.tar)(?:[.+](?:gzip|zstd))?$/;
const PLATFORM = "linux/amd64";

/** @throws BelljarError `IMAGE_INVALID`, `IMAGE_HOSTILE`, `IMAGE_UNSUPPORTED` */
export async function readOciImage(files: ImageFiles): Promise<SourceImage> {
  const layoutFile = await need(files, "oci-layout");
  const layout = parseDocument(await readDocumentFile(layoutFile, "oci-layout"), "oci-layout");
  const version = layout.needText("imageLayoutVersion");
  if (!version.startsWith("1."))
    throw new BelljarError("IMAGE_UNSUPPORTED", `OCI layout version ${version} is not known`);
  const index = parseDocument(await readDocumentFile(await need(files, "index.json"), "index.json"), "index.json");
  const { data, name } = await findManifest(files, index, 0);
  const image = await readManifest(files, data);
  return name === "" ? image : { ...image, name };
}

/** Depth, not a set of digests seen: a digest cannot contain itself, but a chain can be long. */
async function findManifest(files: ImageFiles, index: Fields, depth: number): Promise<{ data: Buffer; name: string }> {
  if (depth > imageLimits.indexDepthMax) {
    throw new BelljarError("IMAGE_HOSTILE", `indexes lie within indexes more than ${imageLimits.indexDepthMax} deep`, {
      facts: { entry: index.what },
    });
  }
  const all = (index.objects("manifests") ?? []).map(decodeDescriptor);
  const usable = all.filter((one) => INDEX_TYPES.includes(one.mediaType) || MANIFEST_TYPES.includes(one.mediaType));
  const chosen = choose(usable, index.what, depth);
  const data = await readBlob(files, chosen);
  const name = chosen.refName;
  if (!INDEX_TYPES.includes(chosen.mediaType)) return { data, name };
  const inner = await findManifest(files, parseDocument(data, `index ${chosen.digest}`), depth + 1);
  return { data: inner.data, name };
}

function choose(candidates: readonly Descriptor[], what: string, depth: number): Descriptor {
  const matching = candidates.filter((one) => one.platform === PLATFORM);
  const unstated = candidates.filter((one) => one.platform === "");
  const found = matching.length > 0 ? matching : unstated;
  const [first] = found;
  if (first === undefined) {
    const there = candidates.map((one) => one.platform);
    throw new BelljarError(
      "IMAGE_UNSUPPORTED",
      `${what} has no image for ${PLATFORM}; it has ${there.length === 0 ? "none at all" : there.join(", ")}`,
      {
        facts: { wanted: PLATFORM, available: there },
      },
    );
  }
  // The outermost index of a layout lists images; an index within it lists platforms of one image.
  if (depth === 0 && found.some((one) => one.digest !== first.digest)) {
    const names = found.map((one) => (one.refName === "" ? one.digest : one.refName));
    throw new BelljarError("IMAGE_INVALID", `${what} holds several images: ${names.join(", ")}`, {
      facts: { available: names },
      remedy: "Copy the one that is meant into a layout of its own.",
    });
  }
  return first;
}

/** A document as a registry has it: the digest of the manifest to fetch when it is an index, else undefined. */
export function choosePlatform(data: Buffer, what: string): string | undefined {
  const document = parseDocument(data, what);
  const type = document.text("mediaType") ?? "";
  if (!INDEX_TYPES.includes(type) && document.objects("manifests") === undefined) return undefined;
  const usable = (document.objects("manifests") ?? [])
    .map(decodeDescriptor)
    .filter((one) => MANIFEST_TYPES.includes(one.mediaType));
  return choose(usable, what, 1).digest;
}

/** From a manifest whose bytes are known to be the right ones. */
export async function readManifest(files: ImageFiles, manifestData: Buffer): Promise<SourceImage> {
  const what = `manifest ${digestOf(manifestData)}`;
  const manifest = parseDocument(manifestData, what);
  const configDescriptor = manifest.object("config");
  if (configDescriptor === undefined)
    throw new BelljarError("IMAGE_UNSUPPORTED", `${what} has no configuration: it is not a container image`);
  const configData = await readBlob(files, decodeDescriptor(configDescriptor));
  const config = decodeConfig(parseDocument(configData, `configuration ${digestOf(configData)}`));
  checkPlatform(config, what);
  const descriptors = (manifest.objects("layers") ?? []).map(decodeDescriptor);
  checkCounts(descriptors.length, config, what);
  const layers: SourceLayer[] = [];
  for (const [index, descriptor] of descriptors.entries()) {
    const diffId = config.diffIds[index];
    if (diffId === undefined) continue;
    if (!LAYER_TYPE.test(descriptor.mediaType)) {
      throw new BelljarError(
        "IMAGE_UNSUPPORTED",
        `${what}: layer ${index + 1} is of the type ${descriptor.mediaType.slice(0, 100)}, which Belljar cannot unpack`,
        {
          facts: { mediaType: descriptor.mediaType.slice(0, 100) },
        },
      );
    }
    const file = await need(files, `blobs/sha256/${digestHex(descriptor.digest)}`);
    layers.push({ diffId, file, blob: { digest: descriptor.digest, sizeBytes: descriptor.sizeBytes } });
  }
  return { config, configData, manifestData, layers };
}

/** `docker save`: manifest.json lists configuration and layers by file name. */
export async function readDockerImage(files: ImageFiles): Promise<SourceImage> {
  const data = await readDocumentFile(await need(files, "manifest.json"), "manifest.json");
  // The document is a list; given a name, it can be read like every other.
  const images =
    parseDocument(Buffer.concat([Buffer.from('{"images":'), data, Buffer.from("}")]), "manifest.json").objects(
      "images",
    ) ?? [];
  const [image] = images;
  if (image === undefined) throw new BelljarError("IMAGE_INVALID", "manifest.json lists no image");
  if (images.length > 1) {
    const names = images.map((one) => one.texts("RepoTags")?.[0] ?? one.needText("Config"));
    throw new BelljarError("IMAGE_INVALID", `the archive holds several images: ${names.join(", ")}`, {
      facts: { available: names },
      remedy: "Save the one that is meant into an archive of its own.",
    });
  }
  const configName = image.needText("Config");
  const configData = await readDocumentFile(await need(files, configName), `configuration ${configName}`);
  const stated = /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(configName)?.[1];
  const actual = digestOf(configData);
  if (stated !== undefined && actual !== `sha256:${stated}`)
    throw wrongDigest(`configuration ${configName}`, actual, `sha256:${stated}`);
  const config = decodeConfig(parseDocument(configData, `configuration ${configName}`));
  checkPlatform(config, "the archive");
  const names = image.texts("Layers") ?? [];
  checkCounts(names.length, config, "manifest.json");
  const layers: SourceLayer[] = [];
  for (const [index, name] of names.entries()) {
    const diffId = config.diffIds[index];
    if (diffId !== undefined) layers.push({ diffId, file: await need(files, name) });
  }
  const name = image.texts("RepoTags")?.[0];
  return { config, configData, layers, ...(name === undefined ? {} : { name }) };
}

function checkPlatform(config: ConfigDocument, what: string): void {
  const platform = `${config.os}/${config.architecture}`;
  if (platform === PLATFORM) return;
  throw new BelljarError("IMAGE_UNSUPPORTED", `${what} is for ${platform}; Belljar runs ${PLATFORM}`, {
    facts: { wanted: PLATFORM, available: [platform] },
  });
}

function checkCounts(layers: number, config: ConfigDocument, what: string): void {
  if (layers !== config.diffIds.length) {
    throw new BelljarError(
      "IMAGE_INVALID",
      `${what} has ${layers} layers, but its configuration has ${config.diffIds.length} diff ids`,
      {
        facts: { layers, diffIds: config.diffIds.length },
      },
    );
  }
  if (layers > imageLimits.layersMax) {
    throw new BelljarError("IMAGE_HOSTILE", `${what} has ${layers} layers; the limit is ${imageLimits.layersMax}`, {
      facts: { layers, entry: what },
    });
  }
  if (layers === 0) throw new BelljarError("IMAGE_UNSUPPORTED", `${what} has no layers: there is nothing to run`);
}

function decodeDescriptor(fields: Fields): Descriptor {
  const digest = fields.needText("digest");
  if (!isDigest(digest))
    throw new BelljarError(
      "IMAGE_INVALID",
      `${fields.what}: ${JSON.stringify(digest.slice(0, 100))} is not a sha256 digest`,
    );
  const platform = fields.object("platform");
  const variant = platform?.text("variant") ?? "";
  const name = platform === undefined ? "" : `${platform.text("os") ?? ""}/${platform.text("architecture") ?? ""}`;
  return {
    mediaType: fields.text("mediaType") ?? "",
    digest,
    sizeBytes: fields.needCount("size"),
    platform: variant === "" || name === PLATFORM ? name : `${name}/${variant}`,
    refName:
      fields.object("annotations")?.text("io.containerd.image.name") ??
      fields.object("annotations")?.text("org.opencontainers.image.ref.name") ??
      "",
  };
}

async function readBlob(files: ImageFiles, descriptor: Descriptor): Promise<Buffer> {
  const file = await need(files, `blobs/sha256/${digestHex(descriptor.digest)}`);
  const what = `blob ${descriptor.digest}`;
  if (file.sizeBytes !== descriptor.sizeBytes) {
    throw new BelljarError(
      "IMAGE_INVALID",
      `${what} has ${file.sizeBytes} bytes, not ${descriptor.sizeBytes} as its descriptor says`,
      {
        facts: { sizeBytes: file.sizeBytes, expectedBytes: descriptor.sizeBytes },
      },
    );
  }
  const data = await readDocumentFile(file, what);
  const actual = digestOf(data);
  if (actual !== descriptor.digest) throw wrongDigest(what, actual, descriptor.digest);
  return data;
}

function wrongDigest(what: string, actual: string, expected: string): BelljarError {
  return new BelljarError("IMAGE_INVALID", `the digest of ${what} is ${actual}, not ${expected}`, {
    facts: { actual, expected },
  });
}

async function need(files: ImageFiles, name: string): Promise<ImageFile> {
  const file = await files.find(name);
  if (file === undefined)
    throw new BelljarError("IMAGE_INVALID", `the image has no file ${name}`, { facts: { entry: name } });
  return file;
}
