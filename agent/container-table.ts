/** All containers of the guest by their ids, and the bound on how many processes they have together. */
import { BelljarError } from "../src/base/errors.ts";
import { streamLimits } from "../src/base/limits.ts";
import type { GuestContainer } from "./container.ts";
import type { GuestProcess } from "./process.ts";
import { INIT } from "./process-table.ts";

export class ContainerTable {
  readonly #processesMax: number;
  /** A promise from the moment that the creation begins, so that ids cannot be used twice. */
  readonly #containers = new Map<string, Promise<GuestContainer>>();
  /** Those whose creation is over. */
  readonly #created = new Map<string, GuestContainer>();

  constructor(processesMax: number = streamLimits.processesMax) {
    this.#processesMax = processesMax;
  }

  /** @throws BelljarError `CONTAINER_EXISTS`; what `create` throws: the id is free again then */
  async add(id: string, create: () => Promise<GuestContainer>): Promise<void> {
    if (this.#containers.has(id)) {
      throw new BelljarError("CONTAINER_EXISTS", `the guest has a container ${id} already`);
    }
    const creating = create();
    this.#containers.set(id, creating);
    try {
      this.#created.set(id, await creating);
    } catch (error) {
      this.#containers.delete(id);
      throw error;
    }
  }

  /** Waits for a creation under way. Undefined when there is none, or when it fails. */
  async find(id: string): Promise<GuestContainer | undefined> {
    return await this.#containers.get(id)?.catch(() => undefined);
  }

  /** @throws BelljarError `CONTAINER_NOT_FOUND`; what its creation threw */
  async get(id: string): Promise<GuestContainer> {
    const found = this.#containers.get(id);
    if (found !== undefined) return await found;
    throw new BelljarError("CONTAINER_NOT_FOUND", `the guest has no container ${JSON.stringify(id.slice(0, 64))}`);
  }

  /** Waits for creations under way; those that fail are left out. */
  async all(): Promise<GuestContainer[]> {
    const found = await Promise.all([...this.#containers.keys()].map((id) => this.find(id)));
    return found.filter((container) => container !== undefined);
  }

  /** Without those whose creation is under way. */
  created(): readonly GuestContainer[] {
    return [...this.#created.values()];
  }

  /** Nothing there is success. */
  async remove(id: string): Promise<void> {
    const container = await this.find(id);
    if (container === undefined) return;
    await container.remove();
    this.#containers.delete(id);
    this.#created.delete(id);
  }

  /**
   * Makes room for one process more: when there are as many as there may be, the one of an `exec` that ended first and that nobody
   * has released is forgotten.
   * @throws BelljarError `AGENT_FAILED` when none can be
   */
  async makeRoomForProcess(): Promise<void> {
    const containers = this.created();
    for (;;) {
      const count = containers.reduce((sum, container) => sum + container.processes.size, 0);
      if (count < this.#processesMax) return;
      const oldest = oldestEnded(containers);
      if (oldest === undefined) {
        throw new BelljarError("AGENT_FAILED", `the sandbox has ${count} processes, as many as it may have`);
      }
      await oldest.container.processes.release(oldest.processId);
    }
  }
}

interface EndedProcess {
  readonly container: GuestContainer;
  readonly processId: string;
  readonly process: GuestProcess;
}

/** Init processes stay: how a container ended is kept until it is removed or its owner says that it knows. */
function oldestEnded(containers: readonly GuestContainer[]): EndedProcess | undefined {
  let oldest: EndedProcess | undefined;
  for (const container of containers) {
    for (const [processId, process] of container.processes.settled()) {
      if (processId === INIT || process.end === undefined) continue;
      if (oldest?.process.end === undefined || process.end.exitedAtNs < oldest.process.end.exitedAtNs) {
        oldest = { container, processId, process };
      }
    }
  }
  return oldest;
}
