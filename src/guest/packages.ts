/**
 * Debian's packages: which version apt would install, fetched into a cache of our own and checked against the digest in
 * apt's signed lists. Nothing is installed, and nothing of what is installed is used.
 */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, parseJson, runTool } from "../base/index.ts";
import { TEMPORARY_MARK, writeFileDurably } from "../store/index.ts";
import type { FileHashes } from "./file-hashes.ts";

/** Fetching a kernel over a slow line. */
const FETCH_TIMEOUT_MS = 15 * 60_000;
const UNPACK_TIMEOUT_MS = 120_000;
/** Where apt keeps what it knows; a change there may change what a package's name stands for. */
const APT_STATE = ["/var/lib/apt/lists", "/etc/apt", "/etc/apt/preferences.d", "/etc/apt/sources.list.d"];

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly sha256: string;
}

interface Stanza {
  readonly package: DebianPackage;
  readonly depends: string;
}

export class DebianPackages {
  readonly #cacheDir: string;
  readonly #hashes: FileHashes;

  constructor(deps: { cacheDir: string; hashes: FileHashes }) {
    this.#cacheDir = deps.cacheDir;
    this.#hashes = deps.hashes;
  }

  /**
   * The packages of these names, and the one that `kernelPackage` stands for, as apt's lists have them. The answer is
   * remembered until the lists or apt's settings change.
   */
  async resolve(names: readonly string[], kernelPackage: string, signal?: AbortSignal): Promise<ResolvedPackages> {
    const key = await resolutionKey([...names, kernelPackage]);
    const path = join(this.#cacheDir, "resolution.json");
    const remembered = await readResolution(path, key);
    if (remembered !== undefined) return remembered;

    const found = await aptShow([...names, kernelPackage], signal);
    const meta = found.get(kernelPackage);
    const kernelName = /^linux-image-[a-z0-9.+-]+/.exec(meta?.depends ?? "")?.[0];
    if (kernelName === undefined) throw unknownPackage(kernelPackage);
    const kernel = (await aptShow([kernelName], signal)).get(kernelName);
    if (kernel === undefined) throw unknownPackage(kernelName);
    const packages = names.map((name) => {
      const stanza = found.get(name);
      if (stanza === undefined) throw unknownPackage(name);
      return stanza.package;
    });
    const resolved = { kernel: kernel.package, packages };
    await writeFileDurably(path, JSON.stringify({ key, ...resolved }));
    return resolved;
  }

  /** Paths of the .deb files, fetching those that are missing. */
  async fetch(packages: readonly DebianPackage[], signal?: AbortSignal): Promise<Map<string, string>> {
    const paths = new Map(packages.map((item) => [item.name, join(this.#cacheDir, `${item.sha256}.deb`)]));
    const missing: DebianPackage[] = [];
    for (const item of packages) {
      const path = paths.get(item.name) ?? "";
      if ((await this.#hashes.hashIfPresent(path))?.sha256 !== item.sha256) missing.push(item);
    }
    if (missing.length > 0) await this.#download(missing, signal);
    return paths;
  }

  async #download(packages: readonly DebianPackage[], signal: AbortSignal | undefined): Promise<void> {
    const directory = await mkdtemp(join(this.#cacheDir, TEMPORARY_MARK));
    try {
      const wanted = packages.map((item) => `${item.name}=${item.version}`);
      await runTool("apt-get", ["-q", "-q", "download", ...wanted], {
        cwd: directory,
        signal,
        timeoutMs: FETCH_TIMEOUT_MS,
      }).catch((error: unknown) => {
        throw aptError(error, `${wanted.join(", ")} cannot be fetched`);
      });
      const files = new Map<string, string>();
      for (const file of await readdir(directory)) {
        const path = join(directory, file);
        files.set(
          createHash("sha256")
            .update(await readFile(path))
            .digest("hex"),
          path,
        );
      }
      for (const item of packages) {
        const path = files.get(item.sha256);
        if (path === undefined) {
          throw new BelljarError(
            "GUEST_BUILD_FAILED",
            `what was fetched as ${item.name} ${item.version} is something else`,
            {
              facts: { package: item.name, sha256: item.sha256 },
              remedy: "Run `apt-get update`, then try again.",
            },
          );
        }
        await rename(path, join(this.#cacheDir, `${item.sha256}.deb`));
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
}

export interface ResolvedPackages {
  readonly kernel: DebianPackage;
  readonly packages: readonly DebianPackage[];
}

export async function unpackDeb(path: string, directory: string, signal?: AbortSignal): Promise<void> {
  await mkdir(directory, { recursive: true });
  await runTool("dpkg-deb", ["--extract", path, directory], { signal, timeoutMs: UNPACK_TIMEOUT_MS });
}

async function aptShow(names: readonly string[], signal: AbortSignal | undefined): Promise<Map<string, Stanza>> {
  const result = await runTool("apt-cache", ["--no-all-versions", "show", ...names], { signal }).catch(
    (error: unknown) => {
      throw aptError(error, `apt does not know all of ${names.join(", ")}`);
    },
  );
  return parseStanzas(result.stdout.toString("utf8"));
}

/** Reads what `apt-cache show` prints: the first stanza of each package. */
export function parseStanzas(text: string): Map<string, Stanza> {
  const stanzas = new Map<string, Stanza>();
  for (const block of text.split("\n\n")) {
    const fields = new Map<string, string>();
    for (const line of block.split("\n")) {
      const match = /^([A-Za-z0-9-]+): ?(.*)$/.exec(line);
      if (match?.[1] !== undefined && match[2] !== undefined) fields.set(match[1], match[2]);
    }
    const name = fields.get("Package");
    const version = fields.get("Version");
    const sha256 = fields.get("SHA256");
    if (name === undefined || version === undefined || stanzas.has(name)) continue;
    if (sha256 === undefined || !/^[0-9a-f]{64}$/.test(sha256)) continue;
    stanzas.set(name, { package: { name, version, sha256 }, depends: fields.get("Depends") ?? "" });
  }
  return stanzas;
}

function aptError(error: unknown, what: string): BelljarError {
  const cause = BelljarError.from(error);
  if (cause.reason === "HOST_TOOL_MISSING") {
    return new BelljarError(
      "HOST_TOOL_MISSING",
      "a guest image can only be built where apt is installed (Debian 12 or later)",
      {
        facts: cause.facts,
        remedy: "Build on a Debian system, or copy its directory of guest images and set BELLJAR_GUEST.",
        cause,
      },
    );
  }
  if (cause.reason !== "HOST_TOOL_FAILED") return cause;
  return new BelljarError("GUEST_BUILD_FAILED", what, {
    remedy: "Run `apt-get update` as root, check the network, then try again.",
    cause,
  });
}

function unknownPackage(name: string): BelljarError {
  return new BelljarError("GUEST_BUILD_FAILED", `apt's lists have no package ${name}`, {
    facts: { package: name },
    remedy: "Run `apt-get update` as root; Debian's `main` must be among apt's sources.",
  });
}

async function resolutionKey(names: readonly string[]): Promise<string> {
  const hash = createHash("sha256").update(names.join(" "));
  for (const directory of APT_STATE) {
    for (const name of (await readdir(directory).catch(() => [])).sort()) {
      const info = await stat(join(directory, name), { bigint: true }).catch(() => undefined);
      if (info?.isFile() === true) hash.update(`\0${directory}/${name} ${info.size} ${info.mtimeNs}`);
    }
  }
  return hash.digest("hex");
}

/** A remembered answer that cannot be read is no answer. */
async function readResolution(path: string, key: string): Promise<ResolvedPackages | undefined> {
  try {
    const root = parseJson(await readFile(path, "utf8"), path, "GUEST_BUILD_FAILED");
    if (root.field("key").string() !== key) return undefined;
    const decode = (field: typeof root): DebianPackage => ({
      name: field.field("name").string(),
      version: field.field("version").string(),
      sha256: field.field("sha256").string({ pattern: /^[0-9a-f]{64}$/ }),
    });
    return { kernel: decode(root.field("kernel")), packages: root.field("packages").array(decode) };
  } catch {
    return undefined;
  }
}
