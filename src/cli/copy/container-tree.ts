/** Files of a container as a side of a copy. */
import { BelljarError } from "../../base/index.ts";
import type { DirectoryEntry, FileAttributes, FileInfo, Files } from "../../sdk/index.ts";
import type { Destination, Source } from "./tree.ts";

export class ContainerTree implements Source, Destination {
  readonly #files: Files;
  readonly #signal: AbortSignal;

  constructor(files: Files, signal: AbortSignal) {
    this.#files = files;
    this.#signal = signal;
  }

  async stat(path: string, follow: boolean): Promise<FileInfo> {
    return await this.#files.stat(path, { follow, signal: this.#signal });
  }

  async list(path: string): Promise<readonly DirectoryEntry[]> {
    const { entries, unnameable } = await this.#files.list(path, { signal: this.#signal });
    if (unnameable === 0) return entries;
    throw new BelljarError("PATH_INVALID", `${path} has ${unnameable} entries whose names are not UTF-8`);
  }

  read(path: string): AsyncIterable<Uint8Array> {
    return this.#files.readStream(path, { signal: this.#signal });
  }

  async makeDirectory(path: string): Promise<boolean> {
    try {
      await this.#files.makeDirectory(path, { mode: 0o700, signal: this.#signal });
      return true;
    } catch (error) {
      if (!(error instanceof BelljarError) || error.reason !== "FILE_EXISTS") throw error;
      if ((await this.stat(path, true)).type === "directory") return false;
      throw new BelljarError("NOT_A_DIRECTORY", `${path} in the container is not a directory`, { cause: error });
    }
  }

  async write(path: string, data: AsyncIterable<Uint8Array>, attributes: FileAttributes): Promise<void> {
    // As docker has it: where there is no directory nothing is copied to.
    await this.#files.write(path, data, { ...attributes, parents: false, signal: this.#signal });
  }

  async makeLink(path: string, target: string, attributes: FileAttributes): Promise<void> {
    await this.#files.makeLink(path, target, { ...attributes, signal: this.#signal });
  }

  async finishDirectory(path: string, attributes: FileAttributes): Promise<void> {
    await this.#files.setAttributes(path, attributes, { signal: this.#signal });
  }
}
