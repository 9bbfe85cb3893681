/** An image of many small layers, as a docker archive. */
import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";

/** Layer N has a file /N, and one that every layer has; each says N. Answers the archive's path. */
export async function makeLayers(dir: string, count: number): Promise<string> {
  const names: string[] = [];
  const diffIds: string[] = [];
  for (let layer = 0; layer < count; layer += 1) {
    const tree = join(dir, `tree-${layer}`);
    await mkdir(tree, { recursive: true });
    for (const name of [String(layer), "same"]) await writeFile(join(tree, name), String(layer));
    await runTool("tar", ["-cf", join(dir, `${layer}.tar`), "-C", tree, "."]);
    names.push(`${layer}.tar`);
    const data = await readFile(join(dir, `${layer}.tar`));
    diffIds.push(`sha256:${createHash("sha256").update(data).digest("hex")}`);
  }
  const config = { architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: diffIds } };
  await writeFile(join(dir, "config.json"), JSON.stringify(config));
  await writeFile(join(dir, "manifest.json"), JSON.stringify([{ Config: "config.json", Layers: names }]));
  const archive = join(dir, "image.tar");
  await runTool("tar", ["-cf", archive, "-C", dir, "manifest.json", "config.json", ...names]);
  return archive;
}
