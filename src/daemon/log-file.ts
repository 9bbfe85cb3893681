/**
 * The log of a daemon without a terminal: what its standard error was opened on, in append mode. When it has grown it is put aside, as
 * `.old`, and begun anew; what comes meanwhile waits in memory, and is the first of the new one. What dies with the process, such as
 * Node's own last words, needs no hand of ours: the descriptor stays the file's.
 */
import { copyFile, rename, rm, stat, truncate } from "node:fs/promises";
import { apiLimits, messageChain } from "../base/index.ts";

export interface LogFileDeps {
  readonly path: string;
  /** Appends to the file at `path`. */
  readonly append: (line: string) => void;
  /** It is put aside when it has become larger than this. */
  readonly maxBytes?: number;
}

export class LogFile {
  readonly #deps: LogFileDeps;
  readonly #maxBytes: number;
  /** By this process, since its size was last looked at: whoever starts a daemon has put aside what former ones left. */
  #writtenBytes = 0;
  #held: string[] | undefined;
  #heldBytes = 0;
  #rotation: Promise<void> | undefined;

  constructor(deps: LogFileDeps) {
    this.#deps = deps;
    this.#maxBytes = deps.maxBytes ?? apiLimits.logMaxBytes;
  }

  readonly write = (line: string): void => {
    const bytes = Buffer.byteLength(line);
    if (this.#held !== undefined && this.#heldBytes + bytes <= apiLimits.logHeldBytes) {
      this.#held.push(line);
      this.#heldBytes += bytes;
      return;
    }
    // Too much to wait: it may fall into the gap between the copy and the new beginning.
    this.#deps.append(line);
    this.#writtenBytes += bytes;
    if (this.#writtenBytes >= this.#maxBytes) this.#rotation ??= this.#rotate();
  };

  /** Until what waits is in the file. */
  async settle(): Promise<void> {
    while (this.#rotation !== undefined) await this.#rotation;
  }

  async #rotate(): Promise<void> {
    this.#held = [];
    this.#heldBytes = 0;
    const { path } = this.#deps;
    let failure: unknown;
    try {
      const { size } = await stat(path);
      this.#writtenBytes = size;
      if (size > this.#maxBytes) {
        await copyFile(path, `${path}.old.new`);
        await rename(`${path}.old.new`, `${path}.old`);
        await truncate(path, 0);
        this.#writtenBytes = 0;
      }
    } catch (error) {
      failure = error;
      await rm(`${path}.old.new`, { force: true }).catch(() => {});
      // Tried again after as much has been written once more.
      this.#writtenBytes = 0;
    }
    const held = this.#held;
    this.#held = undefined;
    this.#rotation = undefined;
    if (failure !== undefined) this.#deps.append(`the log was not put aside: ${messageChain(failure).join(": ")}\n`);
    for (const line of held) this.write(line);
  }
}
