/** Memory of VMs, as the host's kernel counts it: what each has alone, and what it shares with others or with the page cache. */
import { readFile } from "node:fs/promises";
import { apiLimits } from "../../base/index.ts";

export interface VmmMemory {
  readonly privateBytes: number;
  readonly sharedBytes: number;
}

/**
 * The kernel walks the page tables of a VM to answer, and holds the VM up meanwhile: each is asked one after the other, and not again before
 * some time has passed, however often and by however many it is scraped. A scrape gives what is known by then.
 */
export class VmmMemoryCache {
  readonly #readOne: (pid: number) => Promise<VmmMemory>;
  readonly #known = new Map<number, { readonly memory: VmmMemory; readonly atMs: number }>();
  #reading: Promise<void> | undefined;

  constructor(readOne: (pid: number) => Promise<VmmMemory> = readVmmMemory) {
    this.#readOne = readOne;
  }

  async read(pids: readonly number[]): Promise<VmmMemory> {
    for (const pid of this.#known.keys()) if (!pids.includes(pid)) this.#known.delete(pid);
    this.#reading ??= this.#renew(pids).finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
    const all = pids.flatMap((pid) => this.#known.get(pid)?.memory ?? []);
    return {
      privateBytes: all.reduce((sum, { privateBytes }) => sum + privateBytes, 0),
      sharedBytes: all.reduce((sum, { sharedBytes }) => sum + sharedBytes, 0),
    };
  }

  /** Those that have waited longest, as many as one scrape may ask. */
  async #renew(pids: readonly number[]): Promise<void> {
    const ageMs = (pid: number): number => performance.now() - (this.#known.get(pid)?.atMs ?? Number.NEGATIVE_INFINITY);
    const old = pids
      .filter((pid) => ageMs(pid) >= apiLimits.memoryRenewMs)
      .sort((one, other) => ageMs(other) - ageMs(one));
    for (const pid of old.slice(0, apiLimits.memoryReadsMax)) {
      this.#known.set(pid, { memory: await this.#readOne(pid), atMs: performance.now() });
    }
  }
}

export async function readVmmMemory(pid: number): Promise<VmmMemory> {
  // One that has just ended has none.
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8").catch(() => "");
  const sum = (kind: string): number =>
    [...text.matchAll(new RegExp(`^${kind}_(?:Clean|Dirty):\\s+(\\d+) kB$`, "gm"))].reduce(
      (total, match) => total + Number(match[1]) * 1024,
      0,
    );
  return { privateBytes: sum("Private"), sharedBytes: sum("Shared") };
}
