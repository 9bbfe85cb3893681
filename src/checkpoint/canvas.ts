/**
 * A file of memory that many VMMs have mapped before anybody knows what will be in it: a copy of what the source's memory was mapped from,
 * which the pages of a snapshot are laid over when forks are made. It lies beside the checkpoints, among what a new owner sweeps away.
 *
 * Invariant: it is laid over once, while no guest runs in any of those VMMs.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { newId } from "../base/index.ts";
import { TEMPORARY_MARK } from "../store/index.ts";
import { copyBase } from "./laid-snapshot.ts";

export class Canvas {
  readonly id = newId();
  readonly path: string;
  readonly #dir: string;
  #made: Promise<void> | undefined;
  #isGone = false;

  constructor(checkpointsDir: string) {
    this.#dir = join(checkpointsDir, `${TEMPORARY_MARK}${this.id}`);
    this.path = join(this.#dir, "memory");
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  /** Once, whoever asks first; anew when that has failed. */
  make(base: string | undefined, sizeBytes: number, signal: AbortSignal): Promise<void> {
    this.#made ??= this.#copy(base, sizeBytes, signal);
    return this.#made;
  }

  async #copy(base: string | undefined, sizeBytes: number, signal: AbortSignal): Promise<void> {
    try {
      await mkdir(this.#dir, { recursive: true, mode: 0o700 });
      await copyBase(base, sizeBytes, this.path, signal);
    } catch (error) {
      await rm(this.#dir, { recursive: true, force: true });
      this.#made = undefined;
      throw error;
    }
  }

  /** The VMMs that have mapped it keep what they have. */
  async remove(): Promise<void> {
    this.#isGone = true;
    await this.#made?.catch(() => {});
    await rm(this.#dir, { recursive: true, force: true });
  }
}
