/**
 * The checkpoints of a root: `checkpoints/<id>/`. One appears by a rename, complete and synced, its manifest written last; it is never
 * changed after that. What a killed writer left is removed when the root is opened. Archives are written and read by any process,
 * which has a lock for that time: what such a one has made goes only when nobody does.
 */
import { mkdir, mkdtemp, open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, checkpointLimits, hasErrno, isId } from "../base/index.ts";
import { linkInto } from "../container/index.ts";
import { acquireLock, type Disk, publish, StateFile, TEMPORARY_MARK } from "../store/index.ts";
import { checkFiles, files, type Linked, linkFiles, readSnapshot, writeFiles } from "./checkpoint-files.ts";
import { type CheckpointState, checkpointSchema } from "./checkpoint-state.ts";
import { FileDigests } from "./file-digests.ts";
import type { Snapshot } from "./snapshot.ts";

const MANIFEST = "manifest.json";
/** Of directories in which an archive is made or unpacked. */
const ARCHIVE_MARK = `${TEMPORARY_MARK}archive-`;

/** What the files do not say by themselves. */
export type CheckpointAbout = Omit<CheckpointState, "devicesAt" | "devicesBytes" | "disks" | "files" | "logs">;

export interface FoundCheckpoint {
  readonly id: string;
  readonly state: CheckpointState | BelljarError;
}

export class CheckpointStore {
  readonly dir: string;
  readonly #disk: Disk;
  readonly #digests = new FileDigests();
  /** Names of those that are being made. */
  readonly #reserved = new Set<string>();

  constructor(dir: string, disk: Disk) {
    this.dir = dir;
    this.#disk = disk;
  }

  /** A directory for one that is about to be made; its name is taken until it is let go. */
  async begin(id: string, name: string): Promise<CheckpointDraft> {
    const taken = (await this.list()).some(
      ({ id: other, state }) => other === name || (!isError(state) && state.name === name),
    );
    if (taken || this.#reserved.has(name)) {
      throw exists(name);
    }
    this.#reserved.add(name);
    const dir = join(this.dir, `${TEMPORARY_MARK}${id}`);
    try {
      await mkdir(dir, { recursive: true, mode: 0o700 });
    } catch (error) {
      this.#reserved.delete(name);
      throw error;
    }
    return new CheckpointDraft(dir, {
      publish: async (snapshot, linked, about) => {
        const written = await writeFiles(dir, snapshot, linked, about, this.#digests);
        const state = { ...about, ...linked, ...written };
        await new StateFile(join(dir, MANIFEST), checkpointSchema, this.#disk).write(state);
        try {
          await publish(dir, join(this.dir, id), this.#disk);
        } catch (error) {
          // One that has its name and may not keep it is not told of, and so is not there.
          await rm(join(this.dir, id), { recursive: true, force: true });
          throw error;
        }
        return state;
      },
      release: () => void this.#reserved.delete(name),
    });
  }

  /** Oldest first; those that cannot be read with what is wrong. */
  async list(): Promise<FoundCheckpoint[]> {
    const found: FoundCheckpoint[] = [];
    for (const id of (await this.#names()).filter(isId)) {
      const state = await this.#read(id).catch((error: unknown) => BelljarError.from(error));
      // One that cannot be read because it has just been removed is none.
      if (!isError(state) || (await this.#names()).includes(id)) found.push({ id, state });
    }
    const at = ({ state }: FoundCheckpoint): number => (isError(state) ? 0 : state.createdAtMs);
    return found.sort((one, other) => at(one) - at(other) || one.id.localeCompare(other.id));
  }

  /** All that a copy is made of; every byte of it has been read once by this process. */
  async open(
    id: string,
    signal?: AbortSignal,
  ): Promise<{ readonly state: CheckpointState; readonly snapshot: Snapshot }> {
    const state = await this.verify(id, signal);
    return { state, snapshot: await readSnapshot(join(this.dir, id), state) };
  }

  /**
   * @param isThorough even what was read before is read again
   * @throws BelljarError `CHECKPOINT_INCOMPLETE`, `CHECKPOINT_CORRUPT`, `CHECKPOINT_MISMATCH` for one of another version
   */
  async verify(id: string, signal?: AbortSignal, isThorough = false): Promise<CheckpointState> {
    const state = await this.#read(id);
    await checkFiles(join(this.dir, id), state, isThorough ? new FileDigests() : this.#digests, signal);
    return state;
  }

  dirOf(id: string): string {
    return join(this.dir, id);
  }

  /** Takes in a directory that somebody else has made, when everything in it is as its manifest says, and nothing else is there. */
  async accept(dir: string, signal?: AbortSignal): Promise<CheckpointState> {
    const state = await this.#readIn(dir, "to be imported");
    const taken = (await this.list()).some(({ id, state: other }) => {
      return id === state.id || (!isError(other) && other.name === state.name);
    });
    if (taken) throw exists(state.name);
    const known = new Set([MANIFEST, ...state.files.map(({ path }) => path)]);
    for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name).slice(dir.length + 1);
      const isPlace = entry.isDirectory() || (entry.isFile() && (known.has(path) || path.startsWith("layers/")));
      if (!isPlace) throw new BelljarError("CHECKPOINT_CORRUPT", `${path} does not belong to the checkpoint`);
    }
    await checkFiles(dir, state, new FileDigests(), signal);
    await syncTree(dir, this.#disk);
    await publish(dir, this.dirOf(state.id), this.#disk);
    return state;
  }

  /** The same checkpoint as in another store, with the same files. Answers its id. */
  async adopt(dir: string): Promise<string> {
    const { id } = await this.#readIn(dir, "to go back to");
    if ((await this.#names()).includes(id)) return id;
    const aside = join(this.dir, `${TEMPORARY_MARK}${id}`);
    await rm(aside, { recursive: true, force: true });
    await mkdir(aside, { recursive: true, mode: 0o700 });
    for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
      const place = join(aside, entry.parentPath.slice(dir.length));
      if (entry.isFile()) await linkInto(join(entry.parentPath, entry.name), place);
    }
    await syncTree(aside, this.#disk);
    await publish(aside, join(this.dir, id), this.#disk);
    return id;
  }

  async remove(id: string): Promise<void> {
    const aside = join(this.dir, `${TEMPORARY_MARK}${id}`);
    await rm(aside, { recursive: true, force: true });
    await publish(join(this.dir, id), aside, this.#disk);
    await rm(aside, { recursive: true, force: true });
  }

  /** Bytes of its disks as they lie on the host. */
  async diskBytes(id: string): Promise<number> {
    let bytes = 0;
    const dir = join(this.dir, id, "disks");
    for (const name of await list(dir)) bytes += await blockBytes(join(dir, name));
    return bytes;
  }

  /** Bytes of the file that copies map their memory from, as it lies on the host. */
  async memoryBytes(id: string): Promise<number> {
    return await blockBytes(join(this.dir, id, files.base));
  }

  /** A directory beside the checkpoints, in which an archive is made or unpacked; goes when it is disposed of. */
  async temporary(signal?: AbortSignal): Promise<{ readonly dir: string } & AsyncDisposable> {
    await mkdir(this.dir, { recursive: true, mode: 0o700 });
    const lock = await acquireLock(this.#archiveLock, {
      mode: "shared",
      timeoutMs: checkpointLimits.archiveLockTimeoutMs,
      what: "the archives of checkpoints",
      signal,
    });
    try {
      const dir = await mkdtemp(join(this.dir, ARCHIVE_MARK));
      return {
        dir,
        [Symbol.asyncDispose]: async () => {
          await using _lock = lock;
          await rm(dir, { recursive: true, force: true });
        },
      };
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Removes what makers that were killed have left, for the owner of the root; answers their names. */
  async sweep(): Promise<readonly string[]> {
    const unfinished = (await this.#names()).filter((name) => name.includes(TEMPORARY_MARK));
    const ofArchives = unfinished.filter((name) => name.startsWith(ARCHIVE_MARK));
    await using lock = ofArchives.length > 0 ? await this.#lockArchives() : undefined;
    const abandoned = lock === undefined ? unfinished.filter((name) => !ofArchives.includes(name)) : unfinished;
    for (const name of abandoned) await rm(join(this.dir, name), { recursive: true, force: true });
    return abandoned;
  }

  get #archiveLock(): string {
    return join(this.dir, "archives.lock");
  }

  /** Undefined while another process makes or unpacks one. */
  async #lockArchives(): Promise<AsyncDisposable | undefined> {
    const what = "the archives of checkpoints";
    try {
      return await acquireLock(this.#archiveLock, { mode: "exclusive", timeoutMs: 0, what });
    } catch (error) {
      if (BelljarError.from(error).reason === "LOCKED") return undefined;
      throw error;
    }
  }

  async #read(id: string): Promise<CheckpointState> {
    const state = await this.#readIn(join(this.dir, id), id);
    if (state.id === id) return state;
    throw new BelljarError("CHECKPOINT_CORRUPT", `the manifest of ${id} belongs to the checkpoint ${state.id}`);
  }

  async #readIn(dir: string, id: string): Promise<CheckpointState> {
    const path = join(dir, MANIFEST);
    try {
      return await new StateFile(path, checkpointSchema, this.#disk).read();
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      const options = { facts: { path }, cause: error };
      if (error.reason === "STATE_MISSING") {
        throw new BelljarError("CHECKPOINT_INCOMPLETE", `the checkpoint ${id} has no manifest`, options);
      }
      if (error.reason === "STATE_CORRUPT") throw new BelljarError("CHECKPOINT_CORRUPT", error.message, options);
      if (error.reason === "STATE_VERSION") throw new BelljarError("CHECKPOINT_MISMATCH", error.message, options);
      throw error;
    }
  }

  #names(): Promise<string[]> {
    return list(this.dir);
  }
}

interface DraftParts {
  readonly publish: (snapshot: Snapshot, linked: Linked, about: CheckpointAbout) => Promise<CheckpointState>;
  readonly release: () => void;
}

/** A checkpoint that is not there yet. Disposing of it removes what was not published. */
export class CheckpointDraft implements AsyncDisposable {
  readonly dir: string;
  readonly #parts: DraftParts;

  constructor(dir: string, parts: DraftParts) {
    this.dir = dir;
    this.#parts = parts;
  }

  /** In the source's turn: nobody takes its files away meanwhile. */
  link(snapshot: Snapshot): Promise<Linked> {
    return linkFiles(this.dir, snapshot);
  }

  publish(snapshot: Snapshot, linked: Linked, about: CheckpointAbout): Promise<CheckpointState> {
    return this.#parts.publish(snapshot, linked, about);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
    this.#parts.release();
  }
}

export function isError(state: CheckpointState | BelljarError): state is BelljarError {
  return state instanceof BelljarError;
}

function exists(name: string): BelljarError {
  return new BelljarError("CHECKPOINT_EXISTS", `there is a checkpoint ${name} already`, { facts: { name } });
}

async function syncTree(dir: string, disk: Disk): Promise<void> {
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) await disk.syncDirectory(path);
    else {
      await using file = await open(path, "r");
      await file.sync();
    }
  }
  await disk.syncDirectory(dir);
}

async function list(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir)).sort();
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return [];
    throw error;
  }
}

/** On the host; of a file that has just been removed none. */
async function blockBytes(path: string): Promise<number> {
  try {
    return (await stat(path)).blocks * 512;
  } catch (error) {
    if (hasErrno(error, "ENOENT")) return 0;
    throw error;
  }
}
