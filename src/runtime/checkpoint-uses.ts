/** Checkpoints that sandboxes are being started from: until those have files of their own, nobody takes them away. */
import { BelljarError } from "../base/index.ts";

export class CheckpointUses {
  readonly #held = new Map<string, number>();

  hold(id: string): Disposable {
    this.#held.set(id, (this.#held.get(id) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        const left = (this.#held.get(id) ?? 1) - 1;
        if (left === 0) this.#held.delete(id);
        else this.#held.set(id, left);
      },
    };
  }

  isHeld(id: string): boolean {
    return this.#held.has(id);
  }

  /** @throws BelljarError `CHECKPOINT_IN_USE` */
  checkUnused(id: string, name: string): void {
    const starting = this.#held.get(id);
    if (starting === undefined) return;
    throw new BelljarError("CHECKPOINT_IN_USE", `the checkpoint ${name} is in use: ${starting} starting from it`, {
      facts: { id, starting },
    });
  }
}
