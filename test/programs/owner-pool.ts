/** VMs that wait for sandboxes, in an owner that is told when to have some: none at all unless a base or an operation asks for them. */
import type { Log } from "../../src/base/index.ts";
import { Pool, type PoolDeps } from "../../src/checkpoint/index.ts";
import type { Sandboxes, SandboxHandle } from "../../src/runtime/index.ts";
import { until } from "../support/until.ts";

const WAITS = "a VM waits for a sandbox";
const FILL_TIMEOUT_MS = 60_000;

export class OwnerPool {
  readonly pool: Pool;
  /** Of those that have waited; one that was taken or ended is among them until the next are made. */
  readonly #told = new Set<string>();
  #size = 0;

  constructor(deps: Omit<PoolDeps, "size" | "availableMemoryMib">) {
    const sizeNow = (): number => this.#size;
    this.pool = new Pool({
      ...deps,
      log: this.#listenTo(deps.log),
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
    await this.pool.drain();
    this.#told.clear();
  }

  /** Nothing waits; for the next sandbox that is made something will. */
  async empty(): Promise<void> {
    await this.close();
    this.#size = 1;
  }

  /** Until a VM waits: it is made when a sandbox has started. */
  async fill(): Promise<void> {
    await until(() => this.#told.size > 0, { what: "a VM that waits", timeoutMs: FILL_TIMEOUT_MS });
  }

  /** Id of the VM that waits for nobody in particular. */
  async waiting({ sandboxes }: { readonly sandboxes: Sandboxes }): Promise<string | undefined> {
    const taken = new Set((await sandboxes.list()).map(({ id }) => id));
    return [...this.#told].find((id) => !taken.has(id));
  }

  /** Has a sandbox made of it. What would wait in its place is not begun. */
  async take(owned: { readonly sandboxes: Sandboxes }, make: () => Promise<SandboxHandle>): Promise<void> {
    const waiting = await this.waiting(owned);
    const making = make();
    // It has its id by now.
    this.#size = 0;
    const { id } = await making;
    if (id !== waiting) throw new Error(`the sandbox ${id} has not taken the VM ${waiting} that waited`);
  }

  #listenTo(log: Log): Log {
    return {
      ...log,
      info: (message, fields) => {
        if (message === WAITS) this.#told.add(String(fields?.["sandbox"]));
        log.info(message, fields);
      },
    };
  }
}
