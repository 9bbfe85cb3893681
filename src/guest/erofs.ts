/** Writes a directory as an EROFS image with mkfs.erofs, and a tree as such a directory. */
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, runTool } from "../base/index.ts";
import type { FileTree } from "./file-tree.ts";

const MKFS_TIMEOUT_MS = 5 * 60_000;

/**
 * Fixed times and identity: the same tree is the same bytes. LZ4 in its strongest form, in clusters of 64 KiB: Node's binary
 * shrinks to less than half, and the guest unpacks it faster than it would read it from most disks.
 */
const MKFS_ARGUMENTS = [
  "-T0",
  "-U00000000-0000-0000-0000-000000000000",
  "--all-root",
  "-zlz4hc,12",
  "-C65536",
  "--quiet",
];

/** Puts a tree into a new directory of the host. */
export async function writeDirectory(tree: FileTree, directory: string): Promise<void> {
  await mkdir(directory);
  await chmod(directory, 0o755);
  for (const [name, entry] of tree.entries()) {
    const target = join(directory, name);
    if (entry.kind === "symlink") {
      await symlink(entry.target, target);
      continue;
    }
    if (entry.kind === "directory") await mkdir(target);
    else await writeFile(target, entry.data);
    // Not left to mkdir and open: they subtract the umask.
    await chmod(target, entry.mode);
  }
}

export async function writeErofs(directory: string, path: string, signal?: AbortSignal): Promise<void> {
  await runTool("mkfs.erofs", [...MKFS_ARGUMENTS, path, directory], { signal, timeoutMs: MKFS_TIMEOUT_MS });
}

/** The version of mkfs.erofs, which shows in the bytes that it writes. */
export async function erofsToolVersion(signal?: AbortSignal): Promise<string> {
  // Releases before 1.6 do not know -V, but say their version on every start, also before they complain.
  const result = await runTool("mkfs.erofs", ["-V"], { signal, successStatuses: [0, 1] }).catch((error: unknown) => {
    const cause = BelljarError.from(error);
    if (cause.reason !== "HOST_TOOL_MISSING") throw cause;
    throw new BelljarError("HOST_TOOL_MISSING", "the program mkfs.erofs is not installed", {
      facts: cause.facts,
      remedy: "Install the package erofs-utils, or run `npm start` in a clone.",
      cause,
    });
  });
  const said = `${result.stdout.toString("utf8")} ${result.stderr}`;
  const version = /\d+\.\d[\w.+-]*/.exec(said)?.[0];
  if (version === undefined) throw new BelljarError("GUEST_BUILD_FAILED", "mkfs.erofs does not say its version");
  return version;
}
