/** Names of images: what a stored one is called, and which one a caller's word means. */
import { basename } from "node:path";
import { BelljarError } from "../base/index.ts";
import { isDigest } from "./digest.ts";
import type { ImageRecord } from "./image-index.ts";
import { parseReference, storedName } from "./reference.ts";

/** The beginning of a digest, as tables show it. */
export const HEX_PREFIX = /^(?:sha256:)?[0-9a-f]{12,64}$/;

interface Named {
  readonly name: string;
  readonly record: ImageRecord;
}

/** The first one that the word means: by name, digest, configuration digest, or at least 12 of the digits of one. */
export function pickNamed<T extends Named>(all: readonly T[], wanted: string): T | undefined {
  const reference = isDigest(wanted) || HEX_PREFIX.test(wanted) ? undefined : parseReference(wanted);
  const byName = reference === undefined ? undefined : all.find((found) => matches(found, reference));
  if (byName !== undefined) return byName;
  const prefix = wanted.startsWith("sha256:") ? wanted : `sha256:${wanted}`;
  const byDigest = all.filter(
    ({ record }) => record.manifestDigest.startsWith(prefix) || record.configDigest.startsWith(prefix),
  );
  const [first] = byDigest;
  if (first !== undefined && (isDigest(wanted) || HEX_PREFIX.test(wanted)) && areOneImage(byDigest)) return first;
  // Twelve hexadecimal digits may be a name after all.
  if (reference !== undefined || isDigest(wanted)) return undefined;
  return all.find((found) => matches(found, parseReference(wanted)));
}

/** By stored name; a digest beside a tag must fit too. A name with a digest alone also finds an image stored under a tag. */
function matches({ name, record }: Named, wanted: ReturnType<typeof parseReference>): boolean {
  if (storedName(wanted) === name)
    return wanted.digest === undefined || wanted.tag === undefined || record.manifestDigest === wanted.digest;
  if (wanted.digest === undefined || wanted.tag !== undefined || record.manifestDigest !== wanted.digest) return false;
  const stored = parseReference(name);
  return stored.registry === wanted.registry && stored.repository === wanted.repository;
}

function areOneImage(found: readonly Named[]): boolean {
  return found.every(({ record }) => record.manifestDigest === found[0]?.record.manifestDigest);
}

/** The name that the source gives itself, or one made of its file's name. */
export function suggestName(path: string, said: string | undefined): string {
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
