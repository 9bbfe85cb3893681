/**
 * The smallest Linux guest that can be watched: it writes TICK 1, TICK 2, ... on its console. Its kernel comes from the
 * clone's cache (see tools/kvm/kernel.ts), so it needs no guest image.
 */
import { execFile } from "node:child_process";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { BootConfig } from "../../src/hypervisor/index.ts";
import { cachedKernel } from "../../tools/kvm/kernel.ts";

const INIT = `#!/busybox sh
n=0
while :; do n=$((n+1)); echo TICK $n; /busybox usleep 20000; done
`;

export async function tickGuest(dir: string): Promise<BootConfig> {
  const kernel = await cachedKernel(join(import.meta.dirname, "../../.cache/kvm"));
  const root = join(dir, "tick-root");
  await mkdir(root);
  await copyFile("/usr/bin/busybox", join(root, "busybox"));
  await writeFile(join(root, "init"), INIT, { mode: 0o755 });
  const initrdPath = join(dir, "tick-initrd");
  await promisify(execFile)("sh", ["-c", 'cd "$1" && find . | cpio -o -H newc --quiet >"$2"', "sh", root, initrdPath]);
  return {
    kernelPath: kernel.imagePath,
    initrdPath,
    kernelArguments: ["console=ttyS0", "quiet", "panic=-1", "nokaslr"],
  };
}

/** The last tick on a console; 0 when there is none. */
export function lastTick(console: string): number {
  return Number([...console.matchAll(/^TICK (\d+)$/gm)].at(-1)?.[1] ?? 0);
}
