/** The configuration document of an image, OCI's and docker's (they differ in nothing that is read here), and its making. */
import { BelljarError } from "../base/index.ts";
import { isDigest } from "./digest.ts";
import type { Fields } from "./document.ts";
import type { ImageConfig } from "./types.ts";

export interface ConfigDocument {
  readonly architecture: string;
  readonly os: string;
  readonly createdAt: string;
  readonly diffIds: readonly string[];
  readonly config: ImageConfig;
}

/** @throws BelljarError `IMAGE_INVALID` */
export function decodeConfig(document: Fields): ConfigDocument {
  const rootfs = document.object("rootfs");
  const diffIds = rootfs?.texts("diff_ids") ?? [];
  if (rootfs !== undefined && rootfs.needText("type") !== "layers") {
    throw new BelljarError("IMAGE_INVALID", `${rootfs.what}: the field type is not "layers"`);
  }
  for (const diffId of diffIds) {
    if (!isDigest(diffId))
      throw new BelljarError("IMAGE_INVALID", `${document.what}: a diff id is not a sha256 digest`);
  }
  const inner = document.object("config");
  return {
    architecture: document.text("architecture") ?? "",
    os: document.text("os") ?? "",
    createdAt: document.text("created") ?? "",
    diffIds,
    config: {
      entrypoint: inner?.texts("Entrypoint") ?? [],
      cmd: inner?.texts("Cmd") ?? [],
      env: checkedEnv(inner),
      workingDir: workingDirOf(inner),
      user: inner?.text("User") ?? "",
      exposedPorts: inner?.object("ExposedPorts")?.keys() ?? [],
      volumes: inner?.object("Volumes")?.keys() ?? [],
      stopSignal: inner?.text("StopSignal") ?? "",
      labels: labelsOf(inner?.object("Labels")),
    },
  };
}

function checkedEnv(inner: Fields | undefined): string[] {
  const env = inner?.texts("Env") ?? [];
  for (const item of env) {
    if (item.indexOf("=") < 1 || item.includes("\0")) {
      throw new BelljarError(
        "IMAGE_INVALID",
        `${inner?.what}: Env has ${JSON.stringify(item.slice(0, 100))}, which is not NAME=value`,
      );
    }
  }
  return env;
}

function workingDirOf(inner: Fields | undefined): string {
  const path = inner?.text("WorkingDir") ?? "";
  if (path === "") return "/";
  // Docker itself takes a relative one from the root.
  return path.startsWith("/") ? path : `/${path}`;
}

function labelsOf(labels: Fields | undefined): Record<string, string> {
  const entries = (labels?.keys() ?? []).map((key) => [key, labels?.text(key) ?? ""] as const);
  return Object.fromEntries(entries);
}

/** For images without a configuration of their own: same input, same bytes. */
export function encodeConfig(config: Partial<ImageConfig>, diffIds: readonly string[]): Buffer {
  const set = (values: readonly string[] | undefined): Record<string, object> | undefined =>
    values === undefined || values.length === 0 ? undefined : Object.fromEntries(values.map((value) => [value, {}]));
  const document = {
    architecture: "amd64",
    os: "linux",
    config: {
      Entrypoint: config.entrypoint,
      Cmd: config.cmd,
      Env: config.env,
      WorkingDir: config.workingDir,
      User: config.user,
      ExposedPorts: set(config.exposedPorts),
      Volumes: set(config.volumes),
      StopSignal: config.stopSignal,
      Labels: config.labels,
    },
    rootfs: { type: "layers", diff_ids: diffIds },
  };
  return Buffer.from(JSON.stringify(document));
}
