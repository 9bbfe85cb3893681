/** An image for measurements: layers of files that no two of them have in common, as a docker archive. */
import { execFile } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface ImageFixture {
  readonly archive: string;
  /** The layers' uncompressed tar archives, bottom first. */
  readonly layers: readonly string[];
}

/** Files of 4 KiB to 400 KiB, half of each random and half of it text, as programs and data are. */
export async function makeImage(dir: string, layerCount: number, layerBytes: number): Promise<ImageFixture> {
  const layers: string[] = [];
  for (let layer = 0; layer < layerCount; layer += 1) {
    const tree = join(dir, `tree-${layer}`);
    await fillTree(join(tree, `usr/share/layer-${layer}`), layerBytes);
    const path = join(dir, `${layer}.tar`);
    await run("tar", ["-cf", path, "-C", tree, "--sort=name", "--format=pax", "."]);
    await rm(tree, { recursive: true });
    layers.push(path);
  }
  const diffIds: string[] = [];
  for (const path of layers)
    diffIds.push(
      `sha256:${createHash("sha256")
        .update(await readFile(path))
        .digest("hex")}`,
    );
  const config = {
    architecture: "amd64",
    os: "linux",
    config: { Cmd: ["true"] },
    rootfs: { type: "layers", diff_ids: diffIds },
  };
  await writeFile(join(dir, "config.json"), JSON.stringify(config));
  const names = layers.map((_, index) => `${index}.tar`);
  const manifest = [{ Config: "config.json", RepoTags: ["bench:latest"], Layers: names }];
  await writeFile(join(dir, "manifest.json"), JSON.stringify(manifest));
  const archive = join(dir, "image.tar");
  await run("tar", ["-cf", archive, "-C", dir, "manifest.json", "config.json", ...names]);
  return { archive, layers };
}

async function fillTree(root: string, bytes: number): Promise<void> {
  const text = Buffer.from("the quick brown fox jumps over the lazy dog\n".repeat(5_000));
  let written = 0;
  for (let index = 0; written < bytes; index += 1) {
    const dir = join(root, `d${index % 50}`);
    if (index < 50) await mkdir(dir, { recursive: true });
    // A spread of sizes without chance: the same tree each time, but for its random halves.
    const size = 4_096 + ((index * 7_919) % 400_000);
    const data = Buffer.concat([randomFillSync(Buffer.alloc(Math.ceil(size / 2))), text.subarray(0, size / 2)]);
    await writeFile(join(dir, `f${index}`), data);
    written += data.length;
  }
}
