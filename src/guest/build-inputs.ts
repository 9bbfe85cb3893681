/** What a guest image is made from, and all of it in a few digests, so that unchanged inputs are not built again. */
import { createHash } from "node:crypto";
import { access, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, extname, join } from "node:path";
import { BelljarError, hasErrno, parseJson } from "../base/index.ts";
import { bundleAgent } from "./agent-bundle.ts";
import { erofsToolVersion } from "./erofs.ts";
import type { FileHashes } from "./file-hashes.ts";
import type { GuestInputs } from "./manifest.ts";
import type { DebianPackages, ResolvedPackages } from "./packages.ts";
import { digestOfFiles, type Recipe, readRecipe } from "./recipe.ts";

export interface BuildSources {
  /** The recipe: guest-image/. */
  readonly recipeDir: string;
  /** The agent's first source file. */
  readonly agentEntry: string;
}

/** The sources in the package that this file belongs to, whether it runs from a clone or compiled (one folder deeper). */
export async function findSources(): Promise<BuildSources> {
  const agentEntry = join(import.meta.dirname, "../../agent", `main${extname(import.meta.filename)}`);
  for (const root of [join(import.meta.dirname, "../.."), join(import.meta.dirname, "../../..")]) {
    const recipeDir = join(root, "guest-image");
    const isThere = await access(join(recipeDir, "contents.json")).then(
      () => true,
      () => false,
    );
    if (isThere) return { recipeDir, agentEntry };
  }
  throw new BelljarError("GUEST_BUILD_FAILED", "the folder guest-image, the recipe, is missing from this installation");
}

export interface BuildInputs {
  readonly inputs: GuestInputs;
  readonly recipe: Recipe;
  readonly resolved: ResolvedPackages;
  readonly nodePath: string;
  readonly agent: Uint8Array;
}

export interface InputsDeps {
  readonly sources: BuildSources;
  readonly packages: DebianPackages;
  readonly hashes: FileHashes;
  readonly signal?: AbortSignal | undefined;
}

/** Collects the inputs; needs no network, and about a second at most when nothing is remembered. */
export async function collectInputs({ sources, packages, hashes, signal }: InputsDeps): Promise<BuildInputs> {
  const recipe = await readRecipe(sources.recipeDir);
  const node = await findNode(recipe.architecture.nodePackage);
  const [resolved, agent, nodeFile, erofsVersion, builderSha256] = await allSettled([
    packages.resolve(recipe.packages, recipe.architecture.kernelPackage, signal),
    bundleAgent(sources.agentEntry, signal),
    hashes.hash(node.path, { signal }),
    erofsToolVersion(signal),
    builderDigest(),
  ]);
  const all = [resolved.kernel, ...resolved.packages];
  const inputs: GuestInputs = {
    architecture: recipe.architecture.name,
    recipeSha256: recipe.digest,
    builderSha256,
    packages: all.map(({ name, version, sha256 }) => ({ name, version, sha256 })),
    node: { version: node.version, sha256: nodeFile.sha256 },
    agentSha256: createHash("sha256").update(agent).digest("hex"),
    tools: { "mkfs.erofs": erofsVersion, zstd: process.versions["zstd"] ?? "none" },
  };
  return { inputs, recipe, resolved, nodePath: node.path, agent };
}

/** In the published package: what `builderDigest` is of the sources, so that it makes the guest image of a clone. */
export const BUILDER_DIGEST_FILE = "builder.sha256";

/** Of the code that builds. */
export async function builderDigest(): Promise<string> {
  try {
    return await readFile(join(import.meta.dirname, BUILDER_DIGEST_FILE), "utf8");
  } catch (error) {
    if (!hasErrno(error, "ENOENT")) throw error;
    return await digestOfFiles(import.meta.dirname, (name) => !name.includes(".test."));
  }
}

/** As Promise.all, but nothing goes on behind the back of an error: it is thrown when all have come to an end. */
async function allSettled<T extends readonly unknown[]>(work: { readonly [K in keyof T]: Promise<T[K]> }): Promise<T> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}

/** Node for the guest comes from npm, as the host's does, but by the package of the guest's architecture. */
async function findNode(packageName: string): Promise<{ readonly path: string; readonly version: string }> {
  let manifestPath: string;
  try {
    manifestPath = createRequire(import.meta.url).resolve(`${packageName}/package.json`);
  } catch (error) {
    throw new BelljarError(
      "GUEST_BUILD_FAILED",
      `the npm package ${packageName} is not installed; it has the guest's Node`,
      {
        facts: { package: packageName },
        remedy: "Run `npm install` in a clone.",
        cause: error,
      },
    );
  }
  const manifest = parseJson(await readFile(manifestPath, "utf8"), manifestPath, "GUEST_BUILD_FAILED");
  return { path: join(dirname(manifestPath), "bin/node"), version: manifest.field("version").string() };
}
