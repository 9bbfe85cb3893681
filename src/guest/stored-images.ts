/**
 * The directory of guest images: DIR/<digest>/ with its manifest and files, DIR/current with the digest of the one that new
 * sandboxes boot. An image appears by one rename, complete and synced, and is never changed after that.
 */
import { open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno } from "../base/index.ts";
import { publish, TEMPORARY_MARK, writeFileDurably } from "../store/index.ts";
import type { FileHashes } from "./file-hashes.ts";
import { decodeManifest, encodeManifest, GUEST_FILES, type GuestManifest, manifestDigest } from "./manifest.ts";

const DIGEST = /^[0-9a-f]{64}$/;
const CURRENT = "current";
const MANIFEST = "manifest.json";

export interface StoredImage {
  readonly digest: string;
  readonly dir: string;
  readonly manifest: GuestManifest;
}

export class StoredImages {
  readonly #dir: string;
  readonly #hashes: FileHashes;

  constructor(deps: { dir: string; hashes: FileHashes }) {
    this.#dir = deps.dir;
    this.#hashes = deps.hashes;
  }

  async digests(): Promise<string[]> {
    return (await namesIn(this.#dir)).filter((name) => DIGEST.test(name)).sort();
  }

  async currentDigest(): Promise<string | undefined> {
    try {
      const digest = (await readFile(join(this.#dir, CURRENT), "utf8")).trim();
      if (DIGEST.test(digest)) return digest;
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return undefined;
      throw error;
    }
    throw new BelljarError("GUEST_IMAGE_CORRUPT", `${join(this.#dir, CURRENT)} does not name a guest image`);
  }

  async setCurrent(digest: string): Promise<void> {
    await writeFileDurably(join(this.#dir, CURRENT), `${digest}\n`, { mode: 0o644 });
  }

  /** Reads and checks an image's manifest, not its files. @throws BelljarError `GUEST_IMAGE_MISSING`, `GUEST_IMAGE_CORRUPT` */
  async open(digest: string): Promise<StoredImage> {
    const dir = join(this.#dir, digest);
    const path = join(dir, MANIFEST);
    let text: string;
    try {
      text = await readFile(path, "utf8");
    } catch (error) {
      if (!hasErrno(error, "ENOENT")) throw error;
      const isThere = (await this.digests()).includes(digest);
      throw isThere
        ? new BelljarError("GUEST_IMAGE_CORRUPT", `the guest image ${digest} has no manifest`, { facts: { dir } })
        : new BelljarError("GUEST_IMAGE_MISSING", `there is no guest image ${digest} in ${this.#dir}`, {
            facts: { dir },
          });
    }
    if (manifestDigest(text) !== digest) {
      throw new BelljarError("GUEST_IMAGE_CORRUPT", `${path} was changed after the image was built`, {
        facts: { path },
      });
    }
    return { digest, dir, manifest: decodeManifest(text, path) };
  }

  /**
   * Compares every file with the manifest. `full` reads every byte; otherwise files that have not been touched since they
   * were last read are believed. @throws BelljarError `GUEST_IMAGE_CORRUPT` naming the first file that differs
   */
  async check(
    image: StoredImage,
    options: { readonly full: boolean; readonly signal?: AbortSignal | undefined },
  ): Promise<void> {
    for (const name of Object.values(GUEST_FILES)) {
      const path = join(image.dir, name);
      const expected = image.manifest.outputs[name];
      const found = await this.#hashes.hash(path, options).catch((error: unknown) => {
        if (!hasErrno(error, "ENOENT")) throw error;
        throw new BelljarError("GUEST_IMAGE_CORRUPT", `${path} is missing`, { facts: { path }, cause: error });
      });
      if (found.sha256 === expected?.sha256) continue;
      throw new BelljarError("GUEST_IMAGE_CORRUPT", `${path} is damaged: its SHA-256 is not the one in the manifest`, {
        facts: { path, expectedSha256: expected?.sha256 ?? "", foundSha256: found.sha256, foundBytes: found.sizeBytes },
      });
    }
    await this.#hashes.save();
  }

  /** Makes an image of the files in `temporary`, a directory beside the images, and gives it its name. */
  async add(temporary: string, facts: Omit<GuestManifest, "outputs">): Promise<StoredImage> {
    const outputs: Record<string, { sizeBytes: number; sha256: string }> = {};
    for (const name of Object.values(GUEST_FILES)) {
      await syncFile(join(temporary, name));
      outputs[name] = await this.#hashes.hash(join(temporary, name), { full: true });
    }
    const manifest = { ...facts, outputs };
    const text = encodeManifest(manifest);
    await writeFileDurably(join(temporary, MANIFEST), text, { mode: 0o644 });
    const digest = manifestDigest(text);
    const dir = join(this.#dir, digest);
    if ((await this.digests()).includes(digest)) {
      // Built again, same bytes. VMs may have the old files open: if those are whole they stay.
      const old = { digest, dir, manifest };
      if (await this.#isWhole(old)) return old;
      const aside = join(this.#dir, `${TEMPORARY_MARK}${digest}`);
      await rename(dir, aside);
      await publish(temporary, dir);
      await rm(aside, { recursive: true, force: true });
    } else {
      await publish(temporary, dir);
    }
    return { digest, dir, manifest };
  }

  /** Removes what interrupted builds have left. The caller holds the lock of builds. */
  async sweep(): Promise<void> {
    for (const directory of [this.#dir, join(this.#dir, "cache")]) {
      const leftovers = (await namesIn(directory)).filter((name) => name.includes(TEMPORARY_MARK));
      for (const name of leftovers) await rm(join(directory, name), { recursive: true, force: true });
    }
  }

  async #isWhole(image: StoredImage): Promise<boolean> {
    try {
      await this.open(image.digest);
      await this.check(image, { full: true });
      return true;
    } catch (error) {
      if (error instanceof BelljarError && error.reason === "GUEST_IMAGE_CORRUPT") return false;
      throw error;
    }
  }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
