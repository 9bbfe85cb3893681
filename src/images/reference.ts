/**
 * Image names as docker reads them: `[registry/]path[:tag][@digest]`. `busybox`, `library/busybox` and
 * `docker.io/library/busybox:latest` are one image, and its short form is the name under which it is stored and shown.
 */
import { BelljarError } from "../base/index.ts";
import { isDigest } from "./digest.ts";

export interface ImageReference {
  /** Host and port; `docker.io` where the name has none. */
  readonly registry: string;
  /** Path on the registry, `library/` included. */
  readonly repository: string;
  /** Absent only when there is a digest. */
  readonly tag?: string;
  readonly digest?: string;
}

const DEFAULT_REGISTRY = "docker.io";
const DEFAULT_NAMESPACE = "library/";
const NAME_MAX = 255;
const COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const PATH = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const REGISTRY = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$/;

/** @throws BelljarError `INVALID_ARGUMENT` */
export function parseReference(text: string): ImageReference {
  const refuse = (why: string): BelljarError => {
    const shown = JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}...` : text);
    return new BelljarError("INVALID_ARGUMENT", `${shown} is not an image name: ${why}`, {
      remedy: "Write it as [registry/]path[:tag][@sha256:digest], in lower case.",
    });
  };
  const at = text.indexOf("@");
  const digest = at === -1 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) throw refuse("what follows @ is not a sha256 digest");
  let rest = at === -1 ? text : text.slice(0, at);
  const colon = rest.lastIndexOf(":");
  let tag: string | undefined;
  // A colon before the last slash belongs to the registry's port.
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) throw refuse("its tag has a character that is not allowed");
  }
  const slash = rest.indexOf("/");
  const first = slash === -1 ? "" : rest.slice(0, slash);
  const hasRegistry = first === "localhost" || /[.:[]/.test(first) || first !== first.toLowerCase();
  const registry = hasRegistry ? first : DEFAULT_REGISTRY;
  if (!REGISTRY.test(registry)) throw refuse("its registry is not a host name");
  let repository = hasRegistry ? rest.slice(slash + 1) : rest;
  if (!PATH.test(repository)) throw refuse("its path has a character that is not allowed");
  const normal = registry === "index.docker.io" ? DEFAULT_REGISTRY : registry;
  if (normal === DEFAULT_REGISTRY && !repository.includes("/")) repository = `${DEFAULT_NAMESPACE}${repository}`;
  if (repository.length > NAME_MAX) throw refuse(`its path is longer than ${NAME_MAX} characters`);
  if (tag === undefined && digest === undefined) tag = "latest";
  return {
    registry: normal,
    repository,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

/** The name under which an image is stored: short where docker.io is meant; the tag wins over the digest. */
export function storedName(reference: ImageReference): string {
  const { registry, repository, tag, digest } = reference;
  const path =
    registry !== DEFAULT_REGISTRY
      ? `${registry}/${repository}`
      : repository.startsWith(DEFAULT_NAMESPACE)
        ? repository.slice(DEFAULT_NAMESPACE.length)
        : repository;
  return tag !== undefined ? `${path}:${tag}` : `${path}@${digest}`;
}

/** The name in full, for a registry client; with a digest the tag is left out, as it must not decide anything. */
export function remoteName(reference: ImageReference): string {
  const { registry, repository, tag, digest } = reference;
  return `${registry}/${repository}${digest !== undefined ? `@${digest}` : `:${tag}`}`;
}
