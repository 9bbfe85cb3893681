/**
 * The files of one container, for the host: where its paths begin, and what is under way or open, so that nothing holds its file
 * systems when it is removed.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { BelljarError } from "../src/base/errors.ts";
import { fileLimits } from "../src/base/limits.ts";
import type { FileAttributes, FileEventSchema } from "../src/protocol/index.ts";
import { readContainerFile } from "./container-files.ts";
import type { Attributes } from "./file-changes.ts";
import { fileError } from "./file-errors.ts";
import { directoryAt, type HeldFile, type HoldRoot, letGo } from "./file-walk.ts";
import { OpenFiles } from "./open-files.ts";
import { resolveUser } from "./user.ts";
import { WatchedFiles } from "./watched-files.ts";

export interface FilesDeps {
  readonly rootfs: string;
  readonly procDir: string;
  /** Of the container's first process while it runs. */
  readonly pid: () => number | undefined;
}

export class Files {
  readonly open = new OpenFiles();
  readonly #watched = new WatchedFiles();
  readonly #deps: FilesDeps;
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #closed = new AbortController();

  constructor(deps: FilesDeps) {
    this.#deps = deps;
  }

  /** Fires when the container is being removed. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** One step of work on the container's files. Errors of the kernel come out in Belljar's words. */
  async step<T>(path: string, work: (root: HoldRoot) => Promise<T>): Promise<T> {
    while (this.#underWay.size >= fileLimits.stepsMax) await Promise.race(this.#underWay).catch(() => {});
    this.closed.throwIfAborted();
    const step = work(this.#holdRoot);
    this.#underWay.add(step);
    try {
      return await step;
    } catch (error) {
      throw fileError(path, error);
    } finally {
      this.#underWay.delete(step);
    }
  }

  /** Waits, which a step must not. */
  async watch(
    request: { readonly id: string; readonly path: string; readonly after: bigint; readonly waitMs: number },
    signal: AbortSignal,
  ): Promise<MessageInitShape<typeof FileEventSchema>[]> {
    await this.step(request.path, (root) => this.#watched.open(root, request.id, request.path, request.after));
    return await this.#watched.next(request, signal);
  }

  /** Of an open file or of a watch. */
  async forget(id: string): Promise<void> {
    await this.open.close(id);
    await this.#watched.close(id);
  }

  /** As the host gave them; a user is looked up in the container's own files. @throws BelljarError `USER_NOT_FOUND` */
  async attributes(given: FileAttributes | undefined): Promise<Attributes> {
    if (given === undefined) return {};
    const { mode, user, modifiedMs } = given;
    return { mode, modifiedMs, owner: user === "" ? undefined : await this.#owner(user) };
  }

  /** Ends what is under way and closes what is open. Nothing begins afterwards. */
  async close(): Promise<void> {
    this.#closed.abort(new BelljarError("INVALID_TRANSITION", "the container is being removed"));
    await Promise.allSettled(this.#underWay);
    await this.open.closeAll();
    await this.#watched.closeAll();
  }

  async #owner(user: string): Promise<{ readonly uid: number; readonly gid: number }> {
    if (/^\d+:\d+$/.test(user)) return resolveUser(user, "", "");
    const { rootfs } = this.#deps;
    const passwd = await readContainerFile(rootfs, "/etc/passwd");
    return resolveUser(user, passwd, await readContainerFile(rootfs, "/etc/group"));
  }

  /**
   * The root as the first process has it, with what is mounted in its namespace. A process that has chosen another root for itself, or
   * whose pid has passed to a stranger, does not count: then it is the root file system as the agent mounted it.
   */
  readonly #holdRoot: HoldRoot = async () => {
    const { rootfs, procDir, pid } = this.#deps;
    const own = await directoryAt(rootfs)();
    const initPid = pid();
    if (initPid === undefined) return own;
    let seen: HeldFile | undefined;
    try {
      seen = await directoryAt(`${procDir}/${initPid}/root`)();
    } catch {
      return own;
    }
    const isSame = seen.stats.dev === own.stats.dev && seen.stats.ino === own.stats.ino;
    await letGo(isSame ? own : seen);
    return isSame ? seen : own;
  };
}
