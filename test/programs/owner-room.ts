/** What waits for sandboxes or copies, in an owner that is told when to have some: nothing at all unless a base or an operation asks for it. */
import type { Log } from "../../src/base/index.ts";
import type { PoolDeps } from "../../src/checkpoint/index.ts";
import type { Sandboxes } from "../../src/runtime/index.ts";
import { until } from "../support/until.ts";

const FILL_TIMEOUT_MS = 60_000;

type RoomDeps = Pick<PoolDeps, "availableMemoryMib" | "log" | "size">;

export class OwnerRoom<T extends { drain(): Promise<void> }> {
  readonly room: T;
  readonly #what: string;
  /** Of those that have waited; one that was taken or ended is among them until the next are made. */
  readonly #told = new Set<string>();
  #size = 0;

  /** @param what as the log calls what waits */
  constructor(what: string, log: Log, make: (deps: RoomDeps) => T) {
    this.#what = what;
    const sizeNow = (): number => this.#size;
    this.room = make({
      log: this.#listenTo(log),
      get size() {
        return sizeNow();
      },
      // What is tried here is not what becomes of it when memory is short.
      availableMemoryMib: async () => Number.MAX_SAFE_INTEGER,
    });
  }

  /** Nothing waits, and nothing will. */
  async close(): Promise<void> {
    this.#size = 0;
    await this.room.drain();
    this.#told.clear();
  }

  /** Nothing waits; for the next sandbox that is made something will. */
  async empty(): Promise<void> {
    await this.close();
    this.#size = 1;
  }

  /** Until something waits: it is made when a sandbox has started. */
  async fill(): Promise<void> {
    await until(() => this.#told.size > 0, { what: `a ${this.#what} that waits`, timeoutMs: FILL_TIMEOUT_MS });
  }

  /** Id of what waits for nobody in particular. */
  async waiting({ sandboxes }: { readonly sandboxes: Sandboxes }): Promise<string | undefined> {
    const taken = new Set((await sandboxes.list()).map(({ id }) => id));
    return [...this.#told].find((id) => !taken.has(id));
  }

  /** Has a sandbox made of it. What would wait in its place is not begun. */
  async take(
    owned: { readonly sandboxes: Sandboxes },
    make: () => Promise<{ readonly id: string } | undefined>,
  ): Promise<void> {
    const waiting = await this.waiting(owned);
    const making = make();
    // It takes what there is, and less than nothing is missing.
    this.#size = -1;
    const id = (await making)?.id;
    if (id !== waiting) throw new Error(`the sandbox ${id} has not taken the ${this.#what} ${waiting} that waited`);
    this.#told.delete(id ?? "");
  }

  #listenTo(log: Log): Log {
    return {
      ...log,
      info: (message, fields) => {
        if (message === `a ${this.#what} waits for a sandbox`) this.#told.add(String(fields?.["sandbox"]));
        log.info(message, fields);
      },
    };
  }
}
