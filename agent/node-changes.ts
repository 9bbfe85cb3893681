/** Tells when the kernel makes or removes a node in /dev. A file system that cannot be watched is one in which nothing is ever told. */
import { type FSWatcher, watch } from "node:fs";

export class NodeChanges {
  readonly #watcher: FSWatcher | undefined;
  #hasChanged = false;
  #wake: (() => void) | undefined;

  constructor(devDir: string) {
    const told = (): void => {
      this.#hasChanged = true;
      this.#wake?.();
    };
    try {
      this.#watcher = watch(devDir, { persistent: false }, told);
      this.#watcher.on("error", () => {});
    } catch {
      this.#watcher = undefined;
    }
  }

  /** Waits for a change since the last one that was told, at most so long; answers whether there was one. */
  async next(timeoutMs: number): Promise<boolean> {
    if (!this.#hasChanged) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    const changed = this.#hasChanged;
    this.#hasChanged = false;
    return changed;
  }

  close(): void {
    this.#watcher?.close();
  }
}
