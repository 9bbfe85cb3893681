/**
 * Where things are: options first, then the environment that the caller hands in, then the defaults of the host.
 * Each root has its own directory of sockets, named by a hash of the root's path: what is found there without an owner can
 * then be removed, and never is another root's.
 */
import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { BelljarError, poolLimits } from "../base/index.ts";

export interface Paths {
  /** All state of this runtime. */
  readonly root: string;
  /** Sockets and pid files of this root; nothing that matters is only here. */
  readonly run: string;
  /** Guest images, shared by all roots of a host. */
  readonly guest: string;
  /** Frozen guests that sandboxes start from. */
  readonly templates: string;
  /** What can be found out again: the acceleration probe's answer. */
  readonly cache: string;
}

export interface PathOptions {
  readonly root?: string | undefined;
  readonly run?: string | undefined;
  readonly guest?: string | undefined;
}

/** A Unix socket's path may have 107 bytes; ours add `/<id>/console.sock` to the run directory. */
const RUN_PATH_MAX_BYTES = 80;

export function resolvePaths(options: PathOptions, env: NodeJS.ProcessEnv, userId: number): Paths {
  const home = env["HOME"] ?? homedir();
  const data = userId === 0 ? "/var/lib/belljar" : join(env["XDG_DATA_HOME"] ?? join(home, ".local/share"), "belljar");
  const runtime = userId === 0 ? "/run/belljar" : join(env["XDG_RUNTIME_DIR"] ?? `/tmp/belljar-${userId}`, "belljar");
  const root = resolve(options.root ?? env["BELLJAR_ROOT"] ?? data);
  const runs = resolve(options.run ?? env["BELLJAR_RUN"] ?? runtime);
  const run = join(runs, createHash("sha256").update(root).digest("hex").slice(0, 8));
  // Guest images stay where they are when the root moves: they are the host's, and the same for everybody.
  const guest = resolve(options.guest ?? env["BELLJAR_GUEST"] ?? join(data, "guest"));
  if (Buffer.byteLength(run) > RUN_PATH_MAX_BYTES) {
    throw new BelljarError("INVALID_ARGUMENT", `the run directory ${run} is too long for Unix sockets`, {
      facts: { maxBytes: RUN_PATH_MAX_BYTES },
      remedy: "Set BELLJAR_RUN to a shorter path.",
    });
  }
  const templates = resolve(env["BELLJAR_TEMPLATES"] ?? join(root, "templates"));
  return { root, run, guest, templates, cache: join(data, "cache") };
}

/** How many VMs wait for the next sandboxes, of a daemon that is started. @throws BelljarError `INVALID_ARGUMENT` */
export function resolvePoolSize(env: NodeJS.ProcessEnv, given?: string): number {
  return parseCount(given ?? env["BELLJAR_POOL"] ?? "0", "a pool", "VMs may wait for sandboxes");
}

/** How many VMMs wait for the next copies, of a daemon that is started. @throws BelljarError `INVALID_ARGUMENT` */
export function resolveSpareCount(env: NodeJS.ProcessEnv, given?: string): number {
  return parseCount(given ?? env["BELLJAR_SPARES"] ?? "0", "a set of spares", "VMMs may wait for copies");
}

function parseCount(text: string, what: string, who: string): number {
  if (/^[0-9]{1,3}$/.test(text) && Number(text) <= poolLimits.sizeMax) return Number(text);
  throw new BelljarError("INVALID_ARGUMENT", `${JSON.stringify(text)} is no size of ${what}`, {
    remedy: `Say how many ${who}: 0 to ${poolLimits.sizeMax}.`,
  });
}
