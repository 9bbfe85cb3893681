/** Debian's PostgreSQL, Redis, Python and C compiler as one root file system; made once, and kept beside what the benchmarks keep. */
import { mkdir, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../src/base/index.ts";

const CACHE = join(import.meta.dirname, "../../.cache/soak");
const PACKAGES = "postgresql-15,postgresql-contrib,redis-server,python3,gcc,libc6-dev,make";
const LEFT_OUT = ["doc", "locale", "man"].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);

/** Path of the archive. */
export async function programsImage(): Promise<string> {
  const path = join(CACHE, "programs.tar");
  const isThere = await stat(path).then(
    () => true,
    () => false,
  );
  if (isThere) return path;
  await mkdir(CACHE, { recursive: true });
  const options = [
    "--variant=minbase",
    `--include=${PACKAGES}`,
    '--aptopt=APT::Install-Recommends "false"',
    ...LEFT_OUT,
  ];
  await runTool("mmdebstrap", [...options, "bookworm", `${path}.new.tar`], { timeoutMs: 900_000 });
  await rename(`${path}.new.tar`, path);
  return path;
}
