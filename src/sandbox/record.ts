/**
 * A sandbox's directory: `sandboxes/<id>/` with `sandbox.json`, `lock`, `disks/` and `logs/`. It appears with its state already
 * in it, under its final name, by one rename; what is found under another name was never finished and belongs to nobody.
 *
 * `state` is what this process goes by. It is the file's content, except after a forced write that failed, when the world has moved on,
 * and after a change that waits for the next one: the next write brings the file up to date.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, hasErrno, type Log, messageChain } from "../base/index.ts";
import { type Disk, publish, removeFileDurably, StateFile, type StateSchema, syncDirectory } from "../store/index.ts";
import type { SandboxedContainer, SandboxState } from "./state.ts";

const STATE_FILE = "sandbox.json";
const UNFINISHED = ".new-";

export interface RecordDeps<C extends SandboxedContainer> {
  /** `<root>/sandboxes` */
  readonly sandboxesDir: string;
  readonly schema: StateSchema<SandboxState<C>>;
  readonly disk: Disk;
  readonly log: Log;
}

export interface WriteOptions {
  /** What the state says has happened already: a disk that fails does not undo it. */
  readonly force?: boolean | undefined;
  /** It is written with the change that comes next: of a sandbox of which a next owner keeps nothing until then, whatever it says. */
  readonly withNext?: boolean | undefined;
}

export class SandboxRecord<C extends SandboxedContainer> {
  readonly dir: string;
  readonly #deps: RecordDeps<C>;
  readonly #file: StateFile<SandboxState<C>>;
  #state: SandboxState<C>;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(deps: RecordDeps<C>, dir: string, file: StateFile<SandboxState<C>>, state: SandboxState<C>) {
    this.dir = dir;
    this.#deps = deps;
    this.#file = file;
    this.#state = state;
  }

  get state(): SandboxState<C> {
    return this.#state;
  }

  static async create<C extends SandboxedContainer>(
    deps: RecordDeps<C>,
    state: SandboxState<C>,
  ): Promise<SandboxRecord<C>> {
    await mkdir(deps.sandboxesDir, { recursive: true, mode: 0o700 });
    const dir = join(deps.sandboxesDir, state.id);
    const unfinished = unfinishedDir(deps.sandboxesDir, state.id);
    try {
      for (const part of ["disks", "logs"]) await mkdir(join(unfinished, part), { recursive: true, mode: 0o700 });
      await new StateFile(join(unfinished, STATE_FILE), deps.schema, deps.disk).write(state);
      await publish(unfinished, dir, deps.disk);
    } catch (error) {
      // A directory that has its name and may not keep it is no sandbox's either: the id is a new one.
      for (const path of [unfinished, dir]) await rm(path, { recursive: true, force: true }).catch(() => {});
      throw error;
    }
    return await SandboxRecord.open(deps, dir);
  }

  /** @throws BelljarError `STATE_MISSING`, `STATE_CORRUPT`, `STATE_VERSION`; the directory is left as it is. */
  static async open<C extends SandboxedContainer>(deps: RecordDeps<C>, dir: string): Promise<SandboxRecord<C>> {
    const file = new StateFile(join(dir, STATE_FILE), deps.schema, deps.disk);
    return new SandboxRecord(deps, dir, file, await file.read());
  }

  /** One change after the other; none is lost, whoever else makes one meanwhile. Answers the state before and after it. */
  update(
    change: (state: SandboxState<C>) => SandboxState<C>,
    options: WriteOptions = {},
  ): Promise<readonly [before: SandboxState<C>, after: SandboxState<C>]> {
    const turn = this.#last.then(async () => {
      const before = this.#state;
      const next = change(before);
      if (next === before) return [before, before] as const;
      if (options.withNext === true) {
        this.#state = next;
        return [before, next] as const;
      }
      try {
        this.#state = await this.#file.write(next);
      } catch (thrown) {
        const error = this.#explain(thrown);
        if (options.force !== true) throw error;
        this.#state = next;
        this.#deps.log.error("the state could not be written", { cause: messageChain(error).join(": ") });
      }
      return [before, this.#state] as const;
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Disks and logs first, the state last: a removal that is cut short can be taken up again. */
  async remove(): Promise<void> {
    await this.#last;
    for (const part of ["disks", "logs"]) await rm(join(this.dir, part), { recursive: true, force: true });
    try {
      await removeFileDurably(join(this.dir, STATE_FILE), this.#deps.disk);
    } catch (error) {
      if (!hasErrno(error, "ENOENT")) throw this.#explain(error);
    }
    await rm(this.dir, { recursive: true, force: true });
    await syncDirectory(this.#deps.sandboxesDir, this.#deps.disk);
  }

  #explain(thrown: unknown): BelljarError {
    const { id } = this.#state;
    for (let cause: unknown = thrown; cause instanceof Error; cause = cause.cause) {
      if (!hasErrno(cause, "ENOENT")) continue;
      return new BelljarError("STATE_MISSING", `the directory of sandbox ${id} was removed from outside`, {
        facts: { dir: this.dir },
        remedy: "Delete the sandbox with force; its VM still runs until then.",
        cause: thrown,
      });
    }
    return BelljarError.from(thrown);
  }
}

/**
 * Where the directory of a sandbox is made. What is there when it is created is the sandbox's then; of an owner that is killed before,
 * nothing stays.
 */
export function unfinishedDir(sandboxesDir: string, id: string): string {
  return join(sandboxesDir, `${UNFINISHED}${id}`);
}

/** True for the directory of a sandbox whose creation was cut short before there was anything but files. */
export function isUnfinished(name: string): boolean {
  return name.startsWith(UNFINISHED);
}
