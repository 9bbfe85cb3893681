/**
 * A kernel with its modules, out of Debian's package, unpacked into the clone's cache. Nothing is taken from /boot: a machine
 * need not have a kernel there, and if it has, not this one.
 */
import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface Kernel {
  readonly version: string;
  readonly imagePath: string;
  /** Directory that holds `lib/modules/<version>`, with its module index. */
  readonly modulesRoot: string;
}

const META_PACKAGE = "linux-image-cloud-amd64";

/** Gets the kernel that Debian's cloud meta package stands for today, or answers the one in the cache. */
export async function cachedKernel(cacheDir: string): Promise<Kernel> {
  const found = await findKernel(cacheDir);
  if (found !== undefined) return found;
  await mkdir(cacheDir, { recursive: true });
  const work = await mkdtemp(join(cacheDir, "unfinished-"));
  try {
    const { stdout } = await run("apt-cache", ["depends", "--no-recommends", "--no-suggests", META_PACKAGE]);
    const name = /^\s+Depends: (linux-image-\S+)$/m.exec(stdout)?.[1];
    if (name === undefined) throw new Error(`the package ${META_PACKAGE} is unknown here; run apt-get update`);
    await run("apt-get", ["download", "-q", name], { cwd: work });
    const file = (await readdir(work)).find((entry) => entry.endsWith(".deb"));
    if (file === undefined) throw new Error(`apt-get download ${name} brought no file`);
    const version = name.slice("linux-image-".length);
    const root = join(work, version);
    await run("dpkg-deb", ["-x", join(work, file), root]);
    // The package leaves this to its installation.
    await run("/sbin/depmod", ["-b", root, version]);
    await rename(root, join(cacheDir, version));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const made = await findKernel(cacheDir);
  if (made === undefined) throw new Error(`the kernel package has no kernel in boot/`);
  return made;
}

async function findKernel(cacheDir: string): Promise<Kernel | undefined> {
  const names = await readdir(cacheDir).catch(() => []);
  for (const version of names.filter((name) => /^\d/.test(name)).sort()) {
    const modulesRoot = join(cacheDir, version);
    const imagePath = join(modulesRoot, "boot", `vmlinuz-${version}`);
    const complete = await access(imagePath).then(
      () => true,
      () => false,
    );
    if (complete) return { version, imagePath, modulesRoot };
  }
  return undefined;
}

/** Files of these modules and all that they need, in the order of loading. Modules that are built in need none. */
export async function moduleFiles(kernel: Kernel, modules: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const module of modules) {
    const { stdout } = await run("/sbin/modprobe", [
      "-d",
      kernel.modulesRoot,
      "-S",
      kernel.version,
      "--show-depends",
      module,
    ]);
    for (const [, path] of stdout.matchAll(/^insmod (\S+)/gm)) {
      if (path !== undefined && !files.includes(path)) files.push(path);
    }
  }
  return files;
}
