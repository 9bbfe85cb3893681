/**
 * The processes of one container by their ids, from the start of a start until they are released. An id is taken from the moment
 * that a start begins, and free again when the start fails or the ended process is released.
 */
import { BelljarError } from "../src/base/errors.ts";
import type { GuestProcess } from "./process.ts";

/** The init process's id. */
export const INIT = "";

export class ProcessTable {
  readonly #containerId: string;
  readonly #processes = new Map<string, Promise<GuestProcess>>();
  readonly #started = new Map<string, GuestProcess>();

  constructor(containerId: string) {
    this.#containerId = containerId;
  }

  get size(): number {
    return this.#processes.size;
  }

  has(processId: string): boolean {
    return this.#processes.has(processId);
  }

  /** @throws what `start` throws: the process never ran, and the start may be tried anew */
  async add(processId: string, start: () => Promise<GuestProcess>): Promise<GuestProcess> {
    const starting = start();
    this.#processes.set(processId, starting);
    try {
      const process = await starting;
      this.#started.set(processId, process);
      return process;
    } catch (error) {
      this.#processes.delete(processId);
      throw error;
    }
  }

  /** Waits for a start under way. Undefined when there is none, or when its start fails. */
  async find(processId: string): Promise<GuestProcess | undefined> {
    return await this.#processes.get(processId)?.catch(() => undefined);
  }

  /** @throws BelljarError `PROCESS_NOT_FOUND`; what the start of the process threw */
  async get(processId: string): Promise<GuestProcess> {
    const found = this.#processes.get(processId);
    if (found !== undefined) return await found;
    const which = processId === INIT ? "no first process" : `no process ${processId}`;
    throw new BelljarError("PROCESS_NOT_FOUND", `the container ${this.#containerId} has ${which}`);
  }

  /** Those that run or have run, in the order of their starts; waits for starts under way. */
  async all(): Promise<readonly (readonly [string, GuestProcess])[]> {
    const found = [...this.#processes].map(async ([processId, starting]) => {
      const process = await starting.catch(() => undefined);
      return process === undefined ? [] : [[processId, process] as const];
    });
    return (await Promise.all(found)).flat();
  }

  /** Those whose start is not under way any more. */
  settled(): ReadonlyMap<string, GuestProcess> {
    return this.#started;
  }

  /** Forgets a process that has ended; nothing there is success. @throws BelljarError `INVALID_TRANSITION` */
  async release(processId: string): Promise<void> {
    const process = await this.find(processId);
    if (process === undefined) return;
    if (process.end === undefined) {
      const which = processId === INIT ? "its first process" : `the process ${processId}`;
      throw new BelljarError("INVALID_TRANSITION", `${which} of the container ${this.#containerId} still runs`);
    }
    this.#processes.delete(processId);
    this.#started.delete(processId);
  }
}
