/**
 * Files that come to this host, from a container that nobody trusts. They are made in a directory of their own beside the place they
 * are for, where every name must be new, so that no link of the container's is ever followed; when all is there they are renamed into
 * place. What fails before that leaves nothing.
 */
import { constants } from "node:fs";
import {
  chmod,
  lchown,
  lstat,
  lutimes,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  rmdir,
  symlink,
  utimes,
} from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { BelljarError, hasErrno, newId } from "../../base/index.ts";
import type { FileAttributes } from "../../sdk/index.ts";
import { hostError } from "./host-source.ts";
import type { Destination } from "./tree.ts";

const OWNER_MAY_ALL = 0o700;
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

export class HostDestination implements Destination, AsyncDisposable {
  /** What is copied has this path until it is complete. */
  readonly staged: string;
  readonly #stage: string;
  readonly #final: string;
  /** Directories that their owner may not change; they get their modes last. */
  readonly #restricted = new Map<string, number>();

  private constructor(stage: string, final: string) {
    this.#stage = stage;
    this.#final = final;
    this.staged = join(stage, basename(final) === "" ? "root" : basename(final));
  }

  /** @param final where it shall be; on the same file system as the directory that it is in, or as itself when it is a directory */
  static async open(final: string): Promise<HostDestination> {
    const isDirectory = await lstat(final).then(
      (stats) => stats.isDirectory(),
      () => false,
    );
    const stage = join(isDirectory ? final : dirname(final), `.belljar-${newId()}`);
    try {
      await mkdir(stage, { mode: 0o700 });
    } catch (cause) {
      throw hostError(dirname(stage), cause);
    }
    return new HostDestination(stage, final);
  }

  async makeDirectory(path: string): Promise<boolean> {
    await this.#do(path, () => mkdir(path, { mode: 0o700 }));
    return true;
  }

  async write(path: string, data: AsyncIterable<Uint8Array>, attributes: FileAttributes): Promise<void> {
    await this.#do(path, async () => {
      const handle = await open(path, NEW_FILE, 0o600);
      try {
        for await (const piece of data) await handle.writeFile(piece);
      } finally {
        await handle.close();
      }
      await change(path, attributes);
    });
  }

  async makeLink(path: string, target: string, { user, modifiedAtMs }: FileAttributes): Promise<void> {
    await this.#do(path, async () => {
      await symlink(target, path);
      const owner = ownerOf(user);
      if (owner !== undefined) await lchown(path, owner.uid, owner.gid);
      if (modifiedAtMs !== undefined) await lutimes(path, modifiedAtMs / 1000, modifiedAtMs / 1000);
    });
  }

  async finishDirectory(path: string, attributes: FileAttributes): Promise<void> {
    const { mode = OWNER_MAY_ALL } = attributes;
    await this.#do(path, () => change(path, { ...attributes, mode: mode | OWNER_MAY_ALL }));
    if ((mode & OWNER_MAY_ALL) !== OWNER_MAY_ALL) this.#restricted.set(path, mode);
  }

  /** Everything is there: into place. Nothing is moved when something stands in the way. */
  async commit(): Promise<void> {
    await this.#do(this.#final, async () => {
      const merged = new Set<string>();
      await checkWay(this.staged, this.#final, merged);
      await moveInto(this.staged, this.#final);
      for (const [path, mode] of this.#restricted) {
        if (!merged.has(path)) await chmod(join(this.#final, relative(this.staged, path)), mode);
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#stage, { recursive: true, force: true });
  }

  async #do<T>(path: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      // A name that comes twice is a lie of the container's.
      if (hasErrno(cause, "EEXIST")) throw new BelljarError("AGENT_PROTOCOL", `${path} came twice`, { cause });
      throw hostError(path, cause);
    }
  }
}

/** The owner first: a change of owner takes setuid and setgid away. */
async function change(path: string, { mode, user, modifiedAtMs }: FileAttributes): Promise<void> {
  const owner = ownerOf(user);
  if (owner !== undefined) await lchown(path, owner.uid, owner.gid);
  if (mode !== undefined) await chmod(path, mode);
  if (modifiedAtMs !== undefined) await utimes(path, modifiedAtMs / 1000, modifiedAtMs / 1000);
}

/** "uid:gid", as `cp` makes it. */
function ownerOf(user: string | undefined): { readonly uid: number; readonly gid: number } | undefined {
  const [uid, gid] = user?.split(":").map(Number) ?? [];
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}

/** What is where `path` says, links not followed. */
async function kindOf(path: string): Promise<"directory" | "nothing" | "other"> {
  try {
    return (await lstat(path)).isDirectory() ? "directory" : "other";
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return "nothing";
    throw error;
  }
}

/**
 * @param merged gets the directories that are there already
 * @throws BelljarError when a directory would have to replace something else, or the other way round
 */
async function checkWay(staged: string, final: string, merged: Set<string>): Promise<void> {
  const there = await kindOf(final);
  if (there === "nothing") return;
  const isDirectory = (await kindOf(staged)) === "directory";
  if (isDirectory && there === "other") throw new BelljarError("NOT_A_DIRECTORY", `${final} is not a directory`);
  if (!isDirectory && there === "directory") throw new BelljarError("IS_A_DIRECTORY", `${final} is a directory`);
  if (!isDirectory) return;
  merged.add(staged);
  for (const name of await readdir(staged)) await checkWay(join(staged, name), join(final, name), merged);
}

async function moveInto(staged: string, final: string): Promise<void> {
  const isMerged = (await kindOf(final)) === "directory" && (await kindOf(staged)) === "directory";
  if (!isMerged) {
    await rename(staged, final);
    return;
  }
  for (const name of await readdir(staged)) await moveInto(join(staged, name), join(final, name));
  await rmdir(staged);
}
