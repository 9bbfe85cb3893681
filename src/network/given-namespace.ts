/** A network namespace of somebody else's: whether it is one, which one it is, and how programs are run in it. */
import { readdir, stat, statfs } from "node:fs/promises";
import { BelljarError, hasErrno } from "../base/index.ts";
import { tool } from "./namespace.ts";

/** Type of the file system that namespaces are files of. */
const NSFS_MAGIC = 0x6e73_6673;

/** @throws BelljarError `NAMESPACE_INVALID` for a path that names none, or names the host's own */
export async function identifyNamespace(path: string): Promise<string> {
  const invalid = (what: string, cause?: unknown): BelljarError =>
    new BelljarError("NAMESPACE_INVALID", `${path} ${what}`, { facts: { path }, cause });
  let id: string;
  try {
    const { type } = await statfs(path);
    if (type !== NSFS_MAGIC) throw invalid("is no namespace");
    id = await namespaceIdOf(path);
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ENOTDIR")) throw invalid("is not there", error);
    if (hasErrno(error, "EACCES")) throw invalid("may not be looked at", error);
    throw error;
  }
  if (id === (await namespaceIdOf("/proc/self/ns/net"))) {
    throw invalid("is the host's own network, which a sandbox would take over");
  }
  try {
    await tool("nsenter", [`--net=${path}`, "--", "true"], {});
  } catch (error) {
    if (error instanceof BelljarError && error.reason === "NETWORK_FAILED") {
      throw invalid("is no network namespace", error);
    }
    throw error;
  }
  return id;
}

/**
 * A path that leads into this namespace now: the one that was given, or, when that is gone or has become another, one of a process
 * that is still in it. Undefined when nobody is: then there is no such namespace any more.
 */
export async function findNamespace(path: string, namespaceId: string): Promise<string | undefined> {
  if ((await namespaceIdOf(path).catch(() => "")) === namespaceId) return path;
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const candidate = `/proc/${name}/ns/net`;
    if ((await namespaceIdOf(candidate).catch(() => "")) === namespaceId) return candidate;
  }
  return undefined;
}

/** Runs a program of the host's in it, and answers what it printed. */
export async function within(
  path: string,
  command: readonly string[],
  options: { readonly input?: Uint8Array; readonly signal?: AbortSignal | undefined } = {},
): Promise<string> {
  return await tool("nsenter", [`--net=${path}`, "--", ...command], options);
}

async function namespaceIdOf(path: string): Promise<string> {
  const { dev, ino } = await stat(path);
  return `${dev}:${ino}`;
}
