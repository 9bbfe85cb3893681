/** For tests: archives from entries, layers built from bytes, and what a mounted EROFS image has in it. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { pack } from "tar-stream";
import { runTool } from "../base/index.ts";
import { type BuiltLayer, buildLayer } from "./layer-build.ts";

/** Reason to skip a test that makes owners, devices and mounts. */
export const asRoot = { skip: process.geteuid?.() === 0 ? false : "needs root" };

/** A directory for one test. */
export async function scratch(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-images-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

export interface FixtureEntry {
  readonly name: string;
  readonly type?: "file" | "link" | "symlink" | "directory" | "fifo" | "character-device" | "block-device";
  readonly content?: string | Buffer;
  readonly linkname?: string;
  readonly mode?: number;
  readonly pax?: Record<string, string>;
}

/** An archive as another program (tar-stream) writes it. */
export async function archiveOf(entries: readonly FixtureEntry[]): Promise<Buffer> {
  const packer = pack();
  for (const { content, ...header } of entries) {
    const full = { mtime: new Date(1_000_000_000_000), type: "file" as const, ...header };
    packer.entry(full, content ?? "");
  }
  packer.finalize();
  const parts: Buffer[] = [];
  for await (const chunk of packer) if (chunk instanceof Uint8Array) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

export async function* pieces(data: Buffer, size = 1_000): AsyncGenerator<Buffer> {
  for (let offset = 0; offset < data.length; offset += size) yield data.subarray(offset, offset + size);
}

export async function layerOf(data: Buffer, dir: string): Promise<BuiltLayer> {
  const staging = join(dir, `layer-${Math.random().toString(36).slice(2)}`);
  await mkdir(staging);
  return await buildLayer({ label: "layer 1 of 1", open: () => pieces(data) }, staging);
}

/** Mounts the image for the time of `look`. */
export async function mounted<T>(image: string, dir: string, look: (root: string) => Promise<T>): Promise<T> {
  const point = join(dir, "mounted");
  await mkdir(point, { recursive: true });
  await runTool("mount", ["-t", "erofs", "-o", "loop,ro", image, point]);
  try {
    return await look(point);
  } finally {
    await runTool("umount", [point]);
  }
}

/** One line per file: all that find knows, the checksum of the content, and which names are one file. */
export async function describeTree(root: string): Promise<string[]> {
  const format = "%P\\t%y\\t%m\\t%U:%G\\t%s\\t%T@\\t%l\\t%n\\n";
  // A directory's size belongs to the file system, not to the layer.
  const listed = await runTool("find", [
    root,
    "-type",
    "d",
    "-printf",
    format.replace("%s", "-").replace("%n", "-"),
    "-o",
    "-printf",
    format,
  ]);
  const devices = await runTool("sh", [
    "-c",
    'find "$0" \\( -type c -o -type b \\) -exec stat --format="%n %t:%T" {} +',
    root,
  ]);
  const sums = await runTool("sh", ["-c", 'cd "$0" && find . -type f -exec sha256sum {} +', root]);
  const text = [listed, devices, sums].map((result) => result.stdout.toString("latin1").replaceAll(root, "")).join("");
  return text.split("\n").sort();
}

/** The attributes of a tree as GNU tar reads them, `path name=value`, binary values in Latin-1. */
export async function attributesOf(root: string): Promise<string> {
  const args = ["--create", "--file=-", "--xattrs", "--xattrs-include=*", "--format=pax", `--directory=${root}`, "."];
  const archive = (await runTool("tar", args)).stdout.toString("latin1");
  return [...archive.matchAll(/SCHILY\.xattr\.([^=]+)=([^\n]*)/g)]
    .map((match) => `${match[1]}=${match[2]}`)
    .sort()
    .join("\n");
}
