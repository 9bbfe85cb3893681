/**
 * What a guest image was made from and what it consists of. The digest of the manifest is the image's name, so a manifest
 * that was changed no longer fits its directory, and a file that was changed no longer fits its manifest.
 */
import { createHash } from "node:crypto";
import { type Field, parseJson } from "../base/index.ts";
import { canonicalJson } from "../store/index.ts";

/** Raised when the fields change their meaning. */
export const MANIFEST_VERSION = 1;

export interface PackageFacts {
  readonly name: string;
  readonly version: string;
  /** Of the .deb file. */
  readonly sha256: string;
}

export interface GuestInputs {
  readonly architecture: string;
  readonly recipeSha256: string;
  /** Over the sources of the code that builds. */
  readonly builderSha256: string;
  readonly packages: readonly PackageFacts[];
  readonly node: { readonly version: string; readonly sha256: string };
  readonly agentSha256: string;
  /** Programs and libraries whose version shows in the bytes. */
  readonly tools: Readonly<Record<string, string>>;
}

export interface OutputFile {
  readonly sizeBytes: number;
  readonly sha256: string;
}

export interface GuestManifest {
  readonly version: number;
  readonly inputs: GuestInputs;
  readonly kernelRelease: string;
  readonly kernelArguments: readonly string[];
  readonly outputs: Readonly<Record<string, OutputFile>>;
}

/** Files of every guest image. */
export const GUEST_FILES = {
  kernel: "kernel",
  initrd: "initrd",
  root: "root.erofs",
  busybox: "busybox.tar.zst",
  node: "node.tar.zst",
  builtin: "builtin.json",
} as const;

const SHA256 = /^[0-9a-f]{64}$/;

export function encodeManifest(manifest: GuestManifest): string {
  return `${canonicalJson(manifest, "manifest")}\n`;
}

export function manifestDigest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** @throws BelljarError `GUEST_IMAGE_CORRUPT` naming the field */
export function decodeManifest(text: string, name: string): GuestManifest {
  const root = parseJson(text, name, "GUEST_IMAGE_CORRUPT").onlyFields([
    "version",
    "inputs",
    "kernelRelease",
    "kernelArguments",
    "outputs",
  ]);
  const fileNames = Object.values(GUEST_FILES);
  const outputs = root.field("outputs").onlyFields(fileNames);
  return {
    version: root.field("version").oneOf([MANIFEST_VERSION]),
    inputs: decodeInputs(root.field("inputs")),
    kernelRelease: root.field("kernelRelease").string(),
    kernelArguments: root.field("kernelArguments").array((field) => field.string()),
    outputs: Object.fromEntries(fileNames.map((name) => [name, decodeOutput(outputs.field(name))])),
  };
}

function decodeInputs(field: Field): GuestInputs {
  const node = field.field("node");
  return {
    architecture: field.field("architecture").string(),
    recipeSha256: field.field("recipeSha256").string({ pattern: SHA256 }),
    builderSha256: field.field("builderSha256").string({ pattern: SHA256 }),
    packages: field.field("packages").array(decodePackage),
    node: { version: node.field("version").string(), sha256: node.field("sha256").string({ pattern: SHA256 }) },
    agentSha256: field.field("agentSha256").string({ pattern: SHA256 }),
    tools: field.field("tools").map((version) => version.string()),
  };
}

function decodePackage(field: Field): PackageFacts {
  return {
    name: field.field("name").string(),
    version: field.field("version").string(),
    sha256: field.field("sha256").string({ pattern: SHA256 }),
  };
}

function decodeOutput(field: Field): OutputFile {
  return {
    sizeBytes: field.field("sizeBytes").integer({ min: 0 }),
    sha256: field.field("sha256").string({ pattern: SHA256 }),
  };
}
