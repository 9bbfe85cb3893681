/** Who waits for the next checkpoint of a sandbox, whoever makes it. */
import { abortable } from "../sandbox/index.ts";
import type { CheckpointInfo } from "./interface.ts";

interface Next extends PromiseWithResolvers<CheckpointInfo> {
  waiting: number;
}

export class CheckpointWaits {
  readonly #next = new Map<string, Next>();

  async wait(sandboxId: string, signal: AbortSignal): Promise<CheckpointInfo> {
    const next = this.#next.get(sandboxId) ?? { ...Promise.withResolvers<CheckpointInfo>(), waiting: 0 };
    this.#next.set(sandboxId, next);
    next.waiting += 1;
    try {
      return await abortable(next.promise, signal);
    } finally {
      next.waiting -= 1;
      if (next.waiting === 0 && this.#next.get(sandboxId) === next) this.#next.delete(sandboxId);
    }
  }

  /** Does the work, and tells its end to those who wait by then. */
  async telling(sandboxId: string, work: () => Promise<CheckpointInfo>): Promise<CheckpointInfo> {
    const take = (): Next | undefined => {
      const next = this.#next.get(sandboxId);
      this.#next.delete(sandboxId);
      return next;
    };
    try {
      const info = await work();
      take()?.resolve(info);
      return info;
    } catch (error) {
      take()?.reject(error);
      throw error;
    }
  }
}
