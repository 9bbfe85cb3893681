/**
 * Members of the group `belljar`, where the host has one, may talk to the daemon of a root they do not own: as with docker's
 * group, that is as good as being the root's owner. They may reach the socket, and list nothing around it.
 */
import { chmod, chown, readFile, stat } from "node:fs/promises";
import { dirname } from "node:path";

const GROUP = "belljar";
/** Owner all, group only through. */
const PASSABLE_MODE = 0o710;
const PRIVATE_MODE = 0o700;
const MODE_BITS = 0o777;

export async function shareSocket(socketPath: string): Promise<void> {
  const userId = process.getuid?.();
  const groupId = findGroup(await readFile("/etc/group", "utf8").catch(() => ""), GROUP);
  if (userId === undefined || groupId === undefined) return;
  if (userId !== 0 && !(process.getgroups?.() ?? []).includes(groupId)) return;
  await chown(socketPath, userId, groupId);
  const runDir = dirname(socketPath);
  // Only directories that are still as Belljar makes them: others are somebody's own choice.
  for (const dir of [runDir, dirname(runDir)]) {
    const { mode, uid } = await stat(dir);
    if (uid !== userId || (mode & MODE_BITS) !== PRIVATE_MODE) continue;
    await chown(dir, userId, groupId);
    await chmod(dir, PASSABLE_MODE);
  }
}

/** Number of a group in the text of /etc/group. */
export function findGroup(text: string, name: string): number | undefined {
  for (const line of text.split("\n")) {
    const [each, , id] = line.split(":");
    if (each === name && /^\d+$/.test(id ?? "")) return Number(id);
  }
  return undefined;
}
