/** Debian's packages as one root file system; made once, and kept beside what the benchmarks keep. */
import { mkdir, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";

const CACHE = join(import.meta.dirname, "../../.cache/soak");
const LEFT_OUT = ["doc", "locale", "man"].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);

/** Path of the archive. */
export async function debianImage(name: string, packages: readonly string[]): Promise<string> {
  const path = join(CACHE, `${name}.tar`);
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  if (isThere) return path;
  await mkdir(CACHE, { recursive: true });
  const options = [
    "--variant=minbase",
    `--include=${packages.join(",")}`,
    '--aptopt=APT::Install-Recommends "false"',
    ...LEFT_OUT,
  ];
  await runTool("mmdebstrap", [...options, "bookworm", `${path}.new.tar`], { timeoutMs: 900_000 });
  await rename(`${path}.new.tar`, path);
  return path;
}
