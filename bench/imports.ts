/** What an import costs, against the least that has to be done: tar extracts each layer, and mkfs.erofs packs it. */
import { execFile } from "node:child_process";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { silentLog } from "../src/base/index.ts";
import { openImageStore } from "../src/images/index.ts";
import { makeImage } from "./image-fixture.ts";
import { type Measurement, time } from "./measure.ts";

const run = promisify(execFile);

const LAYERS = 5;
const LAYER_BYTES = 60_000_000;
const TIMES = 5;

/** In turns, so that both see the same moods of the machine; the page cache is warm for both. */
export async function measureImports(dir: string): Promise<Measurement[]> {
  const work = join(dir, "imports");
  await mkdir(work, { recursive: true });
  const { archive, layers } = await makeImage(work, LAYERS, LAYER_BYTES);
  /** Of the two programs alone; what they made is removed between them. */
  const byHand = async (): Promise<number> => {
    let totalMs = 0;
    for (const layer of layers) {
      const tree = join(work, "tree");
      await mkdir(tree);
      totalMs += await time(async () => {
        await run("tar", ["-xf", layer, "-C", tree, "--numeric-owner", "--same-owner", "--xattrs-include=*"]);
        await run("mkfs.erofs", ["--quiet", join(work, "layer.erofs"), tree]);
      });
      await rm(tree, { recursive: true });
      await rm(join(work, "layer.erofs"));
    }
    return totalMs;
  };
  const imported = async (): Promise<void> => {
    const store = await openImageStore({ dir: join(work, "store"), log: silentLog });
    await store.import(archive, { name: "bench", kind: "docker-archive" });
  };
  const values: { hand: number[]; imports: number[] } = { hand: [], imports: [] };
  for (let i = 0; i < TIMES; i += 1) {
    values.hand.push(await byHand());
    values.imports.push(await time(imported));
    await rm(join(work, "store"), { recursive: true });
  }
  await rm(work, { recursive: true });
  const ratios = values.imports.map((value, index) => value / (values.hand[index] ?? Number.NaN));
  return [
    { name: "tar and mkfs.erofs alone, 300 MB in five layers", unit: "ms", values: values.hand },
    { name: "import of an image of these layers", unit: "ms", values: values.imports },
    { name: "import against tar and mkfs.erofs", unit: "x", values: ratios },
  ];
}

if (process.argv[1] === import.meta.filename) {
  const [dir = ""] = process.argv.slice(2);
  for (const each of await measureImports(dir))
    process.stdout.write(`${each.name}: ${each.values.join(" ")} ${each.unit}\n`);
}
