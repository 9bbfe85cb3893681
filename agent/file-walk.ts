/**
 * From a path to a file of a container whose processes may change everything while the agent looks. Every component is opened on its
 * own, below the descriptor of the one before and without following a link; links are read and followed here, beginning at the
 * container's root. `..` goes back to what was opened before, never to what the kernel takes for the parent. So no path
 * and no race leads out of the root, and what was found stays what is worked on.
 *
 * Descriptors are O_PATH: they hold a file without opening it, so no device, fifo or socket notices. What is opened for real is opened
 * through /proc/self/fd, once it is known what it is.
 */
import { type BigIntStats, close, constants, fstat, open } from "node:fs";
import { readlink, statfs } from "node:fs/promises";
import { promisify } from "node:util";
import { BelljarError, hasErrno } from "../src/base/errors.ts";
import { fileLimits } from "../src/base/limits.ts";
import { shown } from "./file-errors.ts";

const openFd = promisify(open);
const closeFd = promisify(close);
const statFd = promisify<number, { bigint: true }, BigIntStats>(fstat);

/** Node does not name it. */
const O_PATH = 0o10000000;
const FOUND = O_PATH | constants.O_NOFOLLOW;

export interface WalkOptions {
  /** A link at the end of the path is followed too. */
  readonly follow: boolean;
}

/** A file that is held; the same one however its names change. */
export interface HeldFile {
  readonly fd: number;
  /** Leads to it, and nowhere else. */
  readonly path: string;
  readonly stats: BigIntStats;
}

export interface Place {
  /** The directory that has the name; undefined for the root itself. */
  readonly parent: HeldFile | undefined;
  readonly name: string;
  /** What has the name; undefined when nothing has. */
  readonly target: HeldFile | undefined;
}

interface Step extends HeldFile {
  readonly name: string;
}

/** Opens where the paths of a container begin. */
export type HoldRoot = () => Promise<HeldFile>;

/** Hands the place to `work`; it is held until that has ended. @throws BelljarError `FILE_NOT_FOUND`, `NOT_A_DIRECTORY`, `PATH_INVALID` */
export async function atPath<T>(
  root: HoldRoot,
  path: string,
  options: WalkOptions,
  work: (place: Place) => Promise<T>,
): Promise<T> {
  const walk = new Walk(path);
  try {
    return await work(await walk.go(root, options));
  } finally {
    await walk.close();
  }
}

class Walk {
  readonly #path: string;
  /** The root, then each component. */
  readonly #steps: Step[] = [];
  #ahead: string[];
  #links = 0;

  constructor(path: string) {
    this.#path = path;
    this.#ahead = this.#split(path);
  }

  async go(root: HoldRoot, options: WalkOptions): Promise<Place> {
    this.#steps.push({ name: "", ...(await root()) });
    for (let name = this.#ahead.shift(); name !== undefined; name = this.#ahead.shift()) {
      if (name === ".") this.#demandDirectory();
      else if (name === "..") {
        this.#demandDirectory();
        if (this.#steps.length > 1) await this.#back();
      } else if (!(await this.#step(name, options))) {
        if (this.#ahead.length > 0) throw this.#error("FILE_NOT_FOUND", "there is no such file or directory");
        const parent = this.#steps.at(-1);
        if (parent !== undefined) await checkFileSystem(parent, this.#path);
        return { parent, name, target: undefined };
      }
    }
    const target = this.#steps.at(-1);
    if (target !== undefined) await checkFileSystem(target, this.#path);
    return { parent: this.#steps.at(-2), name: target?.name ?? "", target };
  }

  async close(): Promise<void> {
    for (const { fd } of this.#steps.splice(0)) await closeFd(fd);
  }

  /** False when there is nothing of this name. */
  async #step(name: string, { follow }: WalkOptions): Promise<boolean> {
    this.#demandDirectory();
    const here = `${this.#steps.at(-1)?.path}/${name}`;
    const step = await holdFile(here).catch((error: unknown) => {
      if (hasErrno(error, "ENOENT")) return undefined;
      throw error;
    });
    if (step === undefined) return false;
    this.#steps.push({ ...step, name });
    if (!step.stats.isSymbolicLink() || (this.#ahead.length === 0 && !follow)) {
      if (this.#steps.length > fileLimits.pathDepthMax) throw this.#error("PATH_INVALID", "the path is too deep");
      return true;
    }
    await this.#back();
    this.#links += 1;
    if (this.#links > fileLimits.linksMax) throw this.#error("PATH_INVALID", "there are too many links on the way");
    // By its name, since nothing else reads a link: what has the name by now may be no link any more, and is looked at again.
    const target = await readlink(here).catch((error: unknown) => {
      if (hasErrno(error, "EINVAL") || hasErrno(error, "ENOENT")) return undefined;
      throw error;
    });
    if (target?.startsWith("/") === true) while (this.#steps.length > 1) await this.#back();
    this.#ahead = [...(target === undefined ? [name] : this.#split(target)), ...this.#ahead];
    return true;
  }

  async #back(): Promise<void> {
    const step = this.#steps.pop();
    if (step !== undefined) await closeFd(step.fd);
  }

  #demandDirectory(): void {
    if (this.#steps.at(-1)?.stats.isDirectory() === true) return;
    throw this.#error("NOT_A_DIRECTORY", "something on the way is not a directory");
  }

  /** A slash at the end asks for a directory, and follows a link to one. */
  #split(path: string): string[] {
    if (path.includes("\0") || Buffer.byteLength(path) > fileLimits.pathMaxBytes) {
      throw this.#error("PATH_INVALID", "the path is too long, or has a zero byte");
    }
    const names = path.split("/").filter((name) => name !== "");
    return path.endsWith("/") && names.length > 0 ? [...names, "."] : names;
  }

  #error(reason: "FILE_NOT_FOUND" | "NOT_A_DIRECTORY" | "PATH_INVALID", words: string): BelljarError {
    return new BelljarError(reason, `${shown(this.#path)}: ${words}`);
  }
}

/** A directory of the guest itself, by a path that no container has a hand in. */
export function directoryAt(path: string): HoldRoot {
  return () => hold(path, O_PATH | constants.O_DIRECTORY);
}

/** Holds what has this name now. The directory in the path must be a held one. */
export async function holdFile(path: Buffer | string): Promise<HeldFile> {
  return await hold(path, FOUND);
}

async function hold(path: Buffer | string, flags: number): Promise<HeldFile> {
  const fd = await openFd(path, flags);
  try {
    return { fd, path: pathOf(fd), stats: await statFd(fd, { bigint: true }) };
  } catch (error) {
    await closeFd(fd);
    throw error;
  }
}

export async function letGo(file: HeldFile): Promise<void> {
  await closeFd(file.fd);
}

/** Another hold of the same file, for longer than the walk. */
export async function holdAgain(file: HeldFile): Promise<HeldFile> {
  // Without O_NOFOLLOW: the last component is the kernel's own way to the file.
  return await hold(file.path, O_PATH);
}

function pathOf(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/**
 * The kernel's own interfaces, where writing with the agent's rights could change the guest, and FUSE, which a process of the container
 * may serve: reading may wait for ever. By the magic numbers of statfs(2): proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs,
 * configfs, bpf, pstore, efivarfs, binfmt_misc, FUSE.
 */
const CLOSED_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0x62656570, 0xcafe4a11, 0x6165676c,
  0xde5e81e4, 0x42494e4d, 0x65735546,
]);

async function checkFileSystem(file: HeldFile, path: string): Promise<void> {
  const { type } = await statfs(file.path);
  if (!CLOSED_FILE_SYSTEMS.has(type)) return;
  throw new BelljarError(
    "PATH_INVALID",
    `${shown(path)}: it is on a file system that is the kernel's own, or a program's`,
  );
}
