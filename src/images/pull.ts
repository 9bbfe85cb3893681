/**
 * Pulling through skopeo, into a directory that is read like any other source. skopeo only fetches: the document that the
 * name stands for is fetched first, checked against the digest of the name, and the platform is chosen here; then exactly
 * that manifest is copied, unconverted, so that its digest is the registry's.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, imageLimits, runTool } from "../base/index.ts";
import { digestOf } from "./digest.ts";
import { DirectoryFiles, type ImageFile, type ImageFiles, readDocumentFile } from "./image-files.ts";
import { choosePlatform, readManifest, type SourceImage } from "./manifest.ts";
import { type ImageReference, remoteName } from "./reference.ts";

export interface PullAccess {
  readonly plainHttp: boolean;
  readonly authFile: string | undefined;
  readonly signal: AbortSignal | undefined;
}

/** Of the user's environment, what decides how a registry is reached. */
const PASSED_ON = [
  ...["HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "SSL_CERT_FILE", "SSL_CERT_DIR"],
  ...["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"],
];

/** @throws BelljarError `IMAGE_PULL_FAILED`, `IMAGE_INVALID`, `IMAGE_UNSUPPORTED`, `CANCELLED` */
export async function fetchImage(
  reference: ImageReference,
  stagingDir: string,
  access: PullAccess,
): Promise<SourceImage> {
  const name = remoteName(reference);
  const what = `the document of ${name}`;
  const document = await skopeo(name, ["inspect", "--raw", `docker://${name}`], stagingDir, access, "inspect");
  const digest = digestOf(document);
  if (reference.digest !== undefined && digest !== reference.digest) {
    throw new BelljarError("IMAGE_INVALID", `the digest of ${what} is ${digest}`, {
      facts: { actual: digest, expected: reference.digest },
    });
  }
  const manifestDigest = choosePlatform(document, what) ?? digest;
  const directory = join(stagingDir, "pulled");
  await mkdir(directory, { mode: 0o700 });
  const exact = remoteName({ ...reference, digest: manifestDigest });
  await skopeo(name, ["copy", `docker://${exact}`, `dir:${directory}`], stagingDir, access, "copy");
  const files = new PulledFiles(directory);
  const manifest = await files.findDirect("manifest.json");
  if (manifest === undefined) throw new BelljarError("IMAGE_PULL_FAILED", `skopeo copied no manifest for ${name}`);
  const data = await readDocumentFile(manifest, "manifest.json");
  const actual = digestOf(data);
  if (actual !== manifestDigest) {
    throw new BelljarError(
      "IMAGE_INVALID",
      `the digest of the manifest of ${name} is ${actual}, not ${manifestDigest}`,
      {
        facts: { actual, expected: manifestDigest },
      },
    );
  }
  return await readManifest(files, data);
}

/** skopeo's `dir:` form has blobs under the digits of their digests, side by side. */
class PulledFiles implements ImageFiles {
  readonly #directory: DirectoryFiles;

  constructor(directory: string) {
    this.#directory = new DirectoryFiles(directory);
  }

  find(name: string): Promise<ImageFile | undefined> {
    return this.findDirect(name.replace(/^blobs\/sha256\//, ""));
  }

  findDirect(name: string): Promise<ImageFile | undefined> {
    return this.#directory.find(name);
  }
}

async function skopeo(
  name: string,
  args: readonly string[],
  stagingDir: string,
  access: PullAccess,
  verb: "inspect" | "copy",
): Promise<Buffer> {
  const tls = verb === "copy" ? "--src-tls-verify=false" : "--tls-verify=false";
  const auth =
    access.authFile === undefined
      ? []
      : [verb === "copy" ? `--src-authfile=${access.authFile}` : `--authfile=${access.authFile}`];
  const [first, ...rest] = args;
  const all = [
    first ?? verb,
    ...(access.plainHttp ? [tls] : []),
    ...auth,
    ...(verb === "copy" ? ["--quiet"] : []),
    ...rest,
  ];
  const env: Record<string, string> = { TMPDIR: stagingDir };
  for (const key of PASSED_ON) {
    const value = process.env[key];
    if (value !== undefined) env[key] = value;
  }
  try {
    return (await runTool("skopeo", all, { env, signal: access.signal, timeoutMs: imageLimits.timeoutMs })).stdout;
  } catch (error) {
    if (!(error instanceof BelljarError) || error.reason !== "HOST_TOOL_FAILED") throw error;
    if (/no space left on device/i.test(error.message)) {
      throw new BelljarError("DISK_FULL", `no room is left on the file system of ${stagingDir}`, {
        facts: { path: stagingDir },
        cause: error,
      });
    }
    throw new BelljarError("IMAGE_PULL_FAILED", `${name} could not be pulled: ${lastWords(error.message)}`, {
      facts: { reference: name },
    });
  }
}

/** skopeo ends with a line `time="..." level=fatal msg="..."`; people need the msg, and of it the end most. */
export function lastWords(text: string): string {
  const messages = [...text.matchAll(/msg="((?:[^"\\]|\\.)*)"/g)].map((match) => match[1] ?? "");
  const message = (messages.at(-1) ?? text).replace(/\\(["\\])/g, "$1");
  const cleaned = message.replace(/\p{Cc}+/gu, " ").trim();
  return cleaned.length > 400 ? `...${cleaned.slice(-400)}` : cleaned;
}
