/** Changes that the agent makes to the OCI configuration that the host sends, each one by itself. Pure. */
import { BelljarError } from "../src/base/errors.ts";
import { asObject, type JsonObject } from "./spec.ts";

export interface BindMount {
  readonly source: string;
  readonly destination: string;
  /** Beside "bind". */
  readonly options: readonly string[];
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function destinationOf(mount: unknown): string {
  const destination = asObject(mount, "a mount of the configuration")["destination"];
  return typeof destination === "string" ? destination.replace(/(?<=.)\/+$/, "") : "";
}

/** Adds those whose place the configuration does not use itself. */
export function withMounts(spec: JsonObject, mounts: readonly BindMount[]): JsonObject {
  const own = listOf(spec["mounts"]);
  const taken = new Set(own.map(destinationOf));
  const added = mounts.filter((mount) => !taken.has(mount.destination)).map(ociMount);
  return { ...spec, mounts: [...own, ...added] };
}

/** Puts a mount in the place of the one that the configuration has there, or adds it. */
export function withMountInstead(spec: JsonObject, mount: BindMount): JsonObject {
  const own = listOf(spec["mounts"]);
  const there = own.some((one) => destinationOf(one) === mount.destination);
  if (!there) return withMounts(spec, [mount]);
  return { ...spec, mounts: own.map((one) => (destinationOf(one) === mount.destination ? ociMount(mount) : one)) };
}

/**
 * Those of them that the container can have: there is something to mount on in its root file system, or it can be made. Below what the
 * configuration itself mounts nothing is made, but in a tmpfs: what is there is the user's.
 * @param canHold whether the root file system has this path, or can be given it
 */
export async function mountable(
  spec: JsonObject,
  mounts: readonly BindMount[],
  canHold: (path: string) => Promise<boolean>,
): Promise<readonly BindMount[]> {
  const own = listOf(spec["mounts"]).map((mount) => asObject(mount, "a mount of the configuration"));
  const found: BindMount[] = [];
  for (const mount of mounts) {
    const above = own.findLast((one) => mount.destination.startsWith(`${destinationOf(one)}/`));
    const wanted = mount.destination.startsWith("/proc/") ? "proc" : "tmpfs";
    if (above === undefined ? wanted === "tmpfs" && (await canHold(mount.destination)) : above["type"] === wanted) {
      found.push(mount);
    }
  }
  return found;
}

/** Has the container see a path as one that it cannot write to. */
export function withReadonlyPath(spec: JsonObject, path: string): JsonObject {
  const linux = asObject(spec["linux"] ?? {}, "the configuration's linux");
  return { ...spec, linux: { ...linux, readonlyPaths: [...listOf(linux["readonlyPaths"]), path] } };
}

/** What stands in a mount's source for a place in the guest. */
const MOUNT_SOURCE = "belljar:";

/** Puts places in the guest where the configuration has names for them. @throws BelljarError `INVALID_ARGUMENT` for a name without one */
export function withMountSources(spec: JsonObject, sources: ReadonlyMap<string, string>): JsonObject {
  const mounts = listOf(spec["mounts"]).map((one) => {
    const mount = asObject(one, "a mount of the configuration");
    const source = mount["source"];
    if (typeof source !== "string" || !source.startsWith(MOUNT_SOURCE)) return mount;
    const place = sources.get(source.slice(MOUNT_SOURCE.length));
    if (place === undefined) throw new BelljarError("INVALID_ARGUMENT", "the configuration mounts what was not named");
    return { ...mount, source: place };
  });
  return spec["mounts"] === undefined ? spec : { ...spec, mounts };
}

function ociMount({ source, destination, options }: BindMount): JsonObject {
  return { destination, type: "bind", source, options: ["bind", ...options] };
}

/** Has the container join a namespace that is there, in the place of one of its own. */
export function withNamespace(spec: JsonObject, type: string, path: string): JsonObject {
  const linux = asObject(spec["linux"] ?? {}, "the configuration's linux");
  const others = listOf(linux["namespaces"]).filter((one) => asObject(one, "a namespace")["type"] !== type);
  return { ...spec, linux: { ...linux, namespaces: [...others, { type, path }] } };
}

export function withArguments(spec: JsonObject, args: readonly string[]): JsonObject {
  return { ...spec, process: { ...asObject(spec["process"], "the configuration's process"), args } };
}
