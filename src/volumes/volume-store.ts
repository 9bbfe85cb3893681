/**
 * Named volumes of a root: `volumes/<name>/` with `volume.json` and `disk.raw`, an ext4 file system on a sparse file. A volume
 * appears whole, by one rename, and goes by one; what is found under another name was never finished, or is half removed.
 *
 * Who uses a volume, the sandboxes' states say; whoever removes one has asked them.
 */
import { mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { BelljarError, checkName, hasErrno, type Log, messageChain, mountLimits, newId } from "../base/index.ts";
import { type Disk, publish, StateFile, syncDirectory, Turns } from "../store/index.ts";
import { type VolumeState, volumeSchema } from "./volume-state.ts";

export interface VolumeStoreDeps {
  /** `<root>/volumes` */
  readonly dir: string;
  readonly disk: Disk;
  readonly log: Log;
  readonly nowMs: () => number;
  /** Makes a file of this size with an empty file system. */
  readonly makeDisk: (path: string, sizeBytes: number, signal: AbortSignal | undefined) => Promise<void>;
}

export interface VolumeConfig {
  /** A new id stands in when there is none. */
  readonly name?: string | undefined;
  readonly sizeBytes?: number | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
}

export interface StoredVolume extends VolumeState {
  /** Of its disk. */
  readonly path: string;
  /** What the disk takes on the host. */
  readonly usedBytes: number;
}

const STATE_FILE = "volume.json";
const DISK_FILE = "disk.raw";
const UNFINISHED = ".new-";
const REMOVED = ".old-";

export class VolumeStore {
  readonly #deps: VolumeStoreDeps;
  readonly #turns = new Turns("the volumes");

  constructor(deps: VolumeStoreDeps) {
    this.#deps = deps;
  }

  /** Removes what a former owner was making or removing. Answers the names of what was found. */
  async sweep(): Promise<string[]> {
    const found = (await this.#names()).filter((name) => name.startsWith(UNFINISHED) || name.startsWith(REMOVED));
    for (const name of found) await rm(join(this.#deps.dir, name), { recursive: true, force: true });
    return found;
  }

  /** One that is there, and is not another than asked for, is success. @throws BelljarError `VOLUME_EXISTS`, `DISK_FULL`, ... */
  async create(config: VolumeConfig, signal?: AbortSignal): Promise<StoredVolume> {
    const name = config.name === undefined ? newId() : checkName(config.name, "the name of the volume");
    const sizeBytes = checkSize(config.sizeBytes);
    const labels = checkLabels(config.labels ?? {});
    return await this.#turns.take(async () => {
      const present = await this.#read(name);
      if (present !== undefined) {
        if (config.sizeBytes === undefined || config.sizeBytes === present.sizeBytes) return present;
        throw new BelljarError("VOLUME_EXISTS", `there is a volume ${name} already, of ${present.sizeBytes} bytes`, {
          facts: { name, sizeBytes: present.sizeBytes },
        });
      }
      if ((await this.#names()).length >= mountLimits.volumesMax) {
        throw new BelljarError(
          "INVALID_ARGUMENT",
          `there are ${mountLimits.volumesMax} volumes, as many as there may be`,
        );
      }
      const state = { name, createdAtMs: this.#deps.nowMs(), sizeBytes, named: config.name !== undefined, labels };
      return await this.#make(state, signal);
    });
  }

  /** @throws BelljarError `VOLUME_NOT_FOUND`; what its state threw when it cannot be read */
  async get(name: string): Promise<StoredVolume> {
    const found = await this.#read(checkName(name, "the name of the volume"));
    if (found === undefined) throw notFound(name);
    return found;
  }

  /** Oldest first. Those that cannot be read are left out, with a line of log. */
  async list(): Promise<StoredVolume[]> {
    const volumes: StoredVolume[] = [];
    for (const name of await this.#names()) {
      if (name.startsWith(".")) continue;
      try {
        const volume = await this.#read(name);
        if (volume !== undefined) volumes.push(volume);
      } catch (error) {
        this.#deps.log.warn("a volume cannot be read", { name, cause: messageChain(error).join(": ") });
      }
    }
    return volumes.sort((a, b) => a.createdAtMs - b.createdAtMs || a.name.localeCompare(b.name));
  }

  /**
   * Removes a volume of which nobody says, when its turn has come, that it is in use.
   * @throws BelljarError `VOLUME_NOT_FOUND`, what `checkUnused` throws
   */
  remove(name: string, checkUnused: () => void): Promise<void> {
    return this.#turns.take(async () => {
      const { dir, disk } = this.#deps;
      await this.get(name);
      checkUnused();
      const gone = join(dir, `${REMOVED}${name}-${newId()}`);
      await disk.rename(join(dir, name), gone);
      await syncDirectory(dir, disk);
      await rm(gone, { recursive: true, force: true });
    });
  }

  async #make(state: VolumeState, signal: AbortSignal | undefined): Promise<StoredVolume> {
    const { dir, disk, makeDisk } = this.#deps;
    const unfinished = join(dir, `${UNFINISHED}${state.name}`);
    try {
      await rm(unfinished, { recursive: true, force: true });
      await mkdir(unfinished, { recursive: true, mode: 0o700 });
      const path = join(unfinished, DISK_FILE);
      await makeDisk(path, state.sizeBytes, signal);
      await syncFile(path);
      await new StateFile(join(unfinished, STATE_FILE), volumeSchema, disk).write(state);
      await publish(unfinished, join(dir, state.name), disk);
    } catch (error) {
      await rm(unfinished, { recursive: true, force: true }).catch(() => {});
      throw error;
    }
    return await this.get(state.name);
  }

  async #read(name: string): Promise<StoredVolume | undefined> {
    const dir = join(this.#deps.dir, name);
    const path = join(dir, DISK_FILE);
    try {
      const state = await new StateFile(join(dir, STATE_FILE), volumeSchema, this.#deps.disk).read();
      if (state.name !== name) throw new BelljarError("STATE_CORRUPT", `${dir} holds the volume ${state.name}`);
      const { blocks } = await stat(path);
      return { ...state, path, usedBytes: blocks * 512 };
    } catch (error) {
      const isAbsent = BelljarError.from(error).reason === "STATE_MISSING" && !(await exists(dir));
      if (isAbsent) return undefined;
      throw error;
    }
  }

  async #names(): Promise<string[]> {
    try {
      return await readdir(this.#deps.dir);
    } catch (error) {
      if (hasErrno(error, "ENOENT")) return [];
      throw error;
    }
  }
}

export function notFound(name: string): BelljarError {
  return new BelljarError("VOLUME_NOT_FOUND", `there is no volume ${name}`, { facts: { name } });
}

function checkSize(sizeBytes: number | undefined): number {
  const { volumeMinBytes, volumeMaxBytes, volumeDefaultBytes } = mountLimits;
  const size = sizeBytes ?? volumeDefaultBytes;
  if (Number.isInteger(size) && size >= volumeMinBytes && size <= volumeMaxBytes) return size;
  throw new BelljarError("INVALID_ARGUMENT", `a volume cannot have ${size} bytes`, {
    facts: { min: volumeMinBytes, max: volumeMaxBytes },
    remedy: `Ask for ${volumeMinBytes} to ${volumeMaxBytes} bytes.`,
  });
}

function checkLabels(labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const entries = Object.entries(labels);
  const isRight = entries.every(([key, value]) => /^[^\s\0=]{1,255}$/.test(key) && value.length <= 4_096);
  if (isRight && entries.length <= mountLimits.labelsMax) return Object.fromEntries(entries.sort());
  throw new BelljarError("INVALID_ARGUMENT", "the labels of the volume are too many, too long, or have no name", {
    facts: { max: mountLimits.labelsMax },
  });
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r+");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
