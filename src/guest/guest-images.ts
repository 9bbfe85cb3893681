/**
 * Guest images of one host: built when their inputs have changed, checked before every use.
 *
 * What is noticed when: `current` notices every change of a file made through the file system (see file-hashes.ts), a
 * missing file and a changed manifest; `verify` reads every byte, so it also notices bytes that rotted on the disk.
 */
import { mkdir, mkdtemp, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { BelljarError, type Log, throwIfAborted } from "../base/index.ts";
import { canonicalJson, TEMPORARY_MARK, withLock } from "../store/index.ts";
import { assemble } from "./assemble.ts";
import { type BuildSources, collectInputs, findSources } from "./build-inputs.ts";
import { FileHashes } from "./file-hashes.ts";
import { GUEST_FILES, type GuestInputs, type GuestManifest, MANIFEST_VERSION } from "./manifest.ts";
import { DebianPackages, unpackDeb } from "./packages.ts";
import { type StoredImage, StoredImages } from "./stored-images.ts";

/** How long a build waits for another one on the same host. */
const LOCK_TIMEOUT_MS = 10 * 60_000;

export interface GuestImage {
  readonly digest: string;
  readonly dir: string;
  readonly kernelPath: string;
  readonly initrdPath: string;
  /** The guest's read-only root: a disk with the serial "root". */
  readonly rootPath: string;
  readonly kernelArguments: readonly string[];
  readonly manifest: GuestManifest;
}

export interface GuestImageInfo {
  readonly digest: string;
  readonly current: boolean;
  /** All files, the built-in images included. */
  readonly sizeBytes: number;
  /** ISO 8601, in UTC. */
  readonly createdAt: string;
  readonly kernelVersion: string;
  readonly nodeVersion: string;
  /** Debian packages and their versions. */
  readonly packages: Readonly<Record<string, string>>;
}

export interface BuildOptions {
  /** Build even when nothing has changed. */
  readonly force?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: (step: string) => void;
}

export interface GuestImages {
  /**
   * Builds an image from the present inputs and makes it current; does nothing when the current one was made from the same.
   * @throws BelljarError `GUEST_BUILD_FAILED`, `HOST_TOOL_MISSING`, `PERMISSION_DENIED`, `DISK_FULL`, `UNSUPPORTED_HOST`,
   * `CANCELLED`; the image that was current stays so
   */
  build(options?: BuildOptions): Promise<GuestImage>;
  /** Images whose manifest can be read, the current one first. */
  list(): Promise<GuestImageInfo[]>;
  /** The image that a new sandbox boots. @throws BelljarError `GUEST_IMAGE_MISSING`, `GUEST_IMAGE_CORRUPT` */
  current(): Promise<GuestImage>;
  /** Another one, by its whole digest, that something was made with; looked at as the current one is. @throws as `current` */
  open(digest: string): Promise<GuestImage>;
  /** Reads every byte of an image, named by the beginning of its digest; of the current one unless told. @throws as `current` */
  verify(digest?: string): Promise<GuestImage>;
}

export interface GuestImagesDeps {
  /** Where images are kept, for all users of this host. */
  readonly dir: string;
  readonly log: Log;
  /** Where the recipe and the agent's sources are; those of this package unless told. */
  readonly sources?: BuildSources;
}

export function openGuestImages({ dir: givenDir, log, sources }: GuestImagesDeps): GuestImages {
  const dir = resolve(givenDir);
  const cacheDir = join(dir, "cache");
  const hashes = new FileHashes(join(cacheDir, "hashes.json"));
  const stored = new StoredImages({ dir, hashes });
  const packages = new DebianPackages({ cacheDir, hashes });

  const current = async (full: boolean): Promise<StoredImage> => {
    const digest = await stored.currentDigest();
    if (digest === undefined) {
      throw new BelljarError("GUEST_IMAGE_MISSING", `there is no guest image in ${dir}`, { facts: { dir } });
    }
    return await checked(digest, full);
  };
  const checked = async (digest: string, full: boolean): Promise<StoredImage> => {
    const image = await stored.open(digest);
    await stored.check(image, { full });
    return image;
  };

  /** By the beginning of its digest. */
  const named = async (name: string): Promise<string> => {
    const fitting = (await stored.digests()).filter((digest) => name !== "" && digest.startsWith(name));
    const [digest] = fitting;
    if (digest === undefined) {
      throw new BelljarError(
        "GUEST_IMAGE_MISSING",
        `there is no guest image ${JSON.stringify(name.slice(0, 80))} in ${dir}`,
        {
          facts: { dir },
          remedy: "See `belljar guest ls`.",
        },
      );
    }
    if (fitting.length === 1) return digest;
    throw new BelljarError("INVALID_ARGUMENT", `${fitting.length} guest images begin with ${name}`);
  };

  /** The current image, when it is whole and was made from these inputs. */
  const upToDate = async (inputs: GuestInputs): Promise<StoredImage | undefined> => {
    try {
      const image = await current(false);
      const isSame = canonicalJson(image.manifest.inputs, "inputs") === canonicalJson(inputs, "inputs");
      return isSame ? image : undefined;
    } catch (error) {
      const reason = error instanceof BelljarError ? error.reason : undefined;
      if (reason === "GUEST_IMAGE_CORRUPT") log.warn("the current guest image is damaged; building it again", { dir });
      if (reason === "GUEST_IMAGE_CORRUPT" || reason === "GUEST_IMAGE_MISSING") return undefined;
      throw error;
    }
  };

  const buildLocked = async ({ force = false, signal, progress = () => {} }: BuildOptions): Promise<StoredImage> => {
    await stored.sweep();
    progress("checking what has changed");
    const made = await collectInputs({ sources: sources ?? (await findSources()), packages, hashes, signal });
    await hashes.save();
    if (!force) {
      const same = await upToDate(made.inputs);
      if (same !== undefined) return same;
    }
    const temporary = await mkdtemp(join(dir, TEMPORARY_MARK));
    try {
      const { kernel, packages: others } = made.resolved;
      progress(`Debian packages: ${kernel.name} and ${others.length} more`);
      const debs = await packages.fetch([kernel, ...others], signal);
      progress("unpacking");
      const unpacked = new Map<string, string>();
      for (const [name, deb] of debs) {
        throwIfAborted(signal);
        const target = join(temporary, "unpacked", name);
        await unpackDeb(deb, target, signal);
        unpacked.set(name, target);
      }
      const files = join(temporary, "image");
      await mkdir(files, { mode: 0o755 });
      const kernelRelease = await assemble(
        {
          ...made,
          packageDirs: unpacked,
          kernelDir: unpacked.get(kernel.name) ?? "",
          nodeVersion: made.inputs.node.version,
        },
        files,
        { signal, progress },
      );
      const image = await stored.add(files, {
        version: MANIFEST_VERSION,
        inputs: made.inputs,
        kernelRelease,
        kernelArguments: made.recipe.kernelArguments,
      });
      await stored.setCurrent(image.digest);
      return image;
    } finally {
      await rm(temporary, { recursive: true, force: true });
      await hashes.save();
    }
  };

  return {
    async build(options = {}) {
      await mkdir(cacheDir, { recursive: true, mode: 0o755 }).catch((error: unknown) => {
        throw new BelljarError(BelljarError.from(error).reason, `guest images cannot be kept in ${dir}`, {
          facts: { dir },
          remedy: "Run as root, or set BELLJAR_GUEST to a directory of your own.",
          cause: error,
        });
      });
      const lock = {
        mode: "exclusive",
        timeoutMs: LOCK_TIMEOUT_MS,
        what: `the builder of guest images in ${dir}`,
      } as const;
      const image = await withLock(join(dir, "build.lock"), { ...lock, signal: options.signal }, () =>
        buildLocked(options),
      );
      return guestImage(image);
    },
    async list() {
      const currentDigest = await stored.currentDigest().catch(() => undefined);
      const infos: GuestImageInfo[] = [];
      for (const digest of await stored.digests()) {
        try {
          const { manifest, dir: imageDir } = await stored.open(digest);
          infos.push({
            digest,
            current: digest === currentDigest,
            sizeBytes: Object.values(manifest.outputs).reduce((sum, file) => sum + file.sizeBytes, 0),
            createdAt: (await stat(join(imageDir, "manifest.json"))).mtime.toISOString(),
            kernelVersion: manifest.kernelRelease,
            nodeVersion: manifest.inputs.node.version,
            packages: Object.fromEntries(manifest.inputs.packages.map(({ name, version }) => [name, version])),
          });
        } catch (error) {
          log.warn("a guest image cannot be listed", { digest, problem: BelljarError.from(error).message });
        }
      }
      return infos.sort((a, b) => Number(b.current) - Number(a.current) || b.createdAt.localeCompare(a.createdAt));
    },
    current: async () => guestImage(await current(false)),
    open: async (digest) => guestImage(await checked(await named(digest), false)),
    verify: async (digest) =>
      guestImage(digest === undefined ? await current(true) : await checked(await named(digest), true)),
  };
}

function guestImage({ digest, dir, manifest }: StoredImage): GuestImage {
  return {
    digest,
    dir,
    kernelPath: join(dir, GUEST_FILES.kernel),
    initrdPath: join(dir, GUEST_FILES.initrd),
    rootPath: join(dir, GUEST_FILES.root),
    kernelArguments: manifest.kernelArguments,
    manifest,
  };
}
