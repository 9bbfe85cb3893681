/** The guest's own programs in C, on this host: they are static, and what they ask of the kernel every Linux has. */
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runTool, silentLog } from "../../src/base/index.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { resolvePaths } from "../../src/sdk/paths.ts";

/** A copy of one in `dir`, out of the guest's root image; answers its path. */
export async function guestProgram(dir: string, name: string): Promise<string> {
  const root = join(dir, "root");
  const { guest } = resolvePaths({}, process.env, process.getuid?.() ?? 0);
  const { rootPath } = await openGuestImages({ dir: guest, log: silentLog }).current();
  await runTool("fsck.erofs", [`--extract=${root}`, rootPath], { timeoutMs: 120_000 });
  const path = join(dir, name);
  await writeFile(path, await readFile(join(root, `bin/belljar-${name}`)));
  await chmod(path, 0o755);
  await runTool("rm", ["-rf", root]);
  return path;
}
