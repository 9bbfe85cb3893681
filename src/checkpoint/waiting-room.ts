/**
 * Where something waits for the sandboxes that it will be of: a few of each kind, made when a sandbox of that kind was, and nobody needs the
 * CPUs. Each has the id that its sandbox will have: what a killed owner leaves of them is found by it, and belongs to no sandbox. What
 * waits is in the control group of that sandbox, and where there is to be a network, in the place where that will be; the directory that will be
 * the sandbox's is locked.
 *
 * Invariant: each is handed out once; whatever goes wrong here, a sandbox starts in the usual way.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  BelljarError,
  type Clock,
  type Log,
  messageChain,
  newId,
  type ProcessIdentity,
  poolLimits,
} from "../base/index.ts";
import type { ExpectedNetwork, Networks, OwnNetworkState } from "../network/index.ts";
import { type HostCgroups, noteCgroups } from "../resources/index.ts";
import type { ReadyLocks } from "../sandbox/index.ts";

export interface RoomDeps {
  readonly networks: Networks;
  readonly cgroups: HostCgroups;
  /** Of the directories of sandboxes; without it each takes its own. */
  readonly locks?: ReadyLocks | undefined;
  /** Sockets go below it, as those of sandboxes do. */
  readonly runDir: string;
  readonly clock: Clock;
  readonly log: Log;
  /** How many wait for each kind of sandbox; 0 has none wait. */
  readonly size: number;
  /** What the host could give to new processes, in MiB. */
  readonly availableMemoryMib: () => Promise<number>;
}

/** What is made for a kind of sandbox. */
export interface Blueprint {
  /** Undefined for none. */
  readonly network: ExpectedNetwork | undefined;
  /** What one of them may come to use. */
  readonly memoryMib: number;
}

export interface WaitingPlace {
  readonly id: string;
  readonly runDir: string;
  readonly network: OwnNetworkState | undefined;
  /** To be told of its VMM. */
  readonly onSpawn: (vmm: ProcessIdentity) => Promise<void>;
}

/** How they are made, and come to their end. */
export interface Craft<B extends Blueprint, T> {
  /** What it is, in the words of the log. */
  readonly what: string;
  /** On an error nothing of it is left. */
  readonly make: (blueprint: B, place: WaitingPlace, signal: AbortSignal) => Promise<T>;
  /** Settles when it has ended, by itself or not. */
  readonly ended: (made: T) => Promise<unknown>;
  readonly end: (made: T) => Promise<void>;
}

interface Waiting<T> {
  readonly kind: string;
  readonly id: string;
  readonly runDir: string;
  readonly cgroups: readonly string[];
  readonly made: T;
}

export class WaitingRoom<B extends Blueprint, T> {
  readonly #deps: RoomDeps;
  readonly #craft: Craft<B, T>;
  readonly #waiting = new Map<string, Waiting<T>>();
  /** What kind of sandbox an id was given to that has not been started yet. */
  readonly #given = new Map<string, string>();
  /** The last kinds that were started, the latest last. */
  readonly #kinds = new Map<string, B>();
  readonly #closing = new AbortController();
  #filling: Promise<void> | undefined;
  #watch: NodeJS.Timeout | undefined;
  /** When a sandbox was last started: filling must not take its CPU away. */
  #quietFromMs = 0;

  constructor(deps: RoomDeps, craft: Craft<B, T>) {
    this.#deps = deps;
    this.#craft = craft;
  }

  /** For a new sandbox of this kind: that of what waits for it, or a fresh one. */
  idFor(kind: string): string {
    if (this.#deps.size === 0) return newId();
    const id = this.#free(kind)[0]?.id ?? newId();
    // Most are started at once; those that never are must not pile up.
    const [oldest] = this.#given.keys();
    if (this.#given.size >= poolLimits.reservationsMax && oldest !== undefined) this.#given.delete(oldest);
    this.#given.set(id, kind);
    return id;
  }

  /** How many wait for a sandbox of this kind, and were not given to one. */
  count(kind: string): number {
    return this.#free(kind).length;
  }

  /** The sandbox did not come to be. */
  async giveBack(id: string): Promise<void> {
    this.#given.delete(id);
    await this.#deps.locks?.giveUp(id);
    const found = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (found !== undefined) await this.#end(found);
  }

  /** It is the caller's then, and so are its place and its directory. */
  take(id: string): T | undefined {
    const found = this.#waiting.get(id);
    this.#waiting.delete(id);
    return found?.made;
  }

  /** Of what kind the sandbox is that was given this id; told once, when it was started. */
  started(id: string): string | undefined {
    const kind = this.#given.get(id);
    this.#given.delete(id);
    return kind;
  }

  /** There may be more of this kind: as many are made as are missing. */
  want(kind: string, blueprint: B): void {
    if (this.#closing.signal.aborted || this.#deps.size === 0) return;
    this.#kinds.delete(kind);
    this.#kinds.set(kind, blueprint);
    for (const [oldest] of this.#kinds) {
      if (this.#kinds.size <= poolLimits.kindsMax) break;
      this.#kinds.delete(oldest);
    }
    this.#quietFromMs = performance.now() + poolLimits.quietMs;
    this.#filling ??= this.#fill().finally(() => {
      this.#filling = undefined;
    });
  }

  /** Ends those that wait. */
  async stop(): Promise<void> {
    this.#closing.abort(new BelljarError("CANCELLED", "the runtime was closed"));
    await this.#filling;
    clearInterval(this.#watch);
    this.#given.clear();
    await this.drain();
  }

  /** Ends those that wait for nobody in particular yet; more are made when sandboxes are. */
  async drain(): Promise<void> {
    const all = [...this.#waiting.values()].filter(({ id }) => !this.#given.has(id));
    for (const { id } of all) this.#waiting.delete(id);
    await Promise.all(all.map((each) => this.#end(each)));
  }

  /** No more of this kind are made until it is wanted again. */
  unwant(kind: string): void {
    this.#kinds.delete(kind);
  }

  /** Nothing waits for this kind any more either; the copies that were given an id have their own. */
  async drop(kind: string): Promise<void> {
    this.unwant(kind);
    const all = this.#free(kind);
    for (const { id } of all) this.#waiting.delete(id);
    await Promise.all(all.map((each) => this.#end(each)));
  }

  #free(kind: string): readonly Waiting<T>[] {
    return [...this.#waiting.values()].filter((each) => each.kind === kind && !this.#given.has(each.id));
  }

  async #fill(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const waitMs = this.#quietFromMs - performance.now();
      if (waitMs > 0) await this.#deps.clock.sleep(waitMs, signal).catch(() => {});
      const missing = this.#missing();
      if (signal.aborted || missing === undefined || !(await this.#hasRoom(missing.blueprint.memoryMib))) return;
      const { kind, blueprint } = missing;
      try {
        await this.#add(kind, blueprint);
      } catch (error) {
        if (signal.aborted) return;
        // Until it is wanted again, which it may have been meanwhile.
        if (this.#kinds.get(kind) === blueprint) this.#kinds.delete(kind);
        this.#deps.log.warn(`no ${this.#craft.what} could be made to wait for a sandbox`, {
          cause: messageChain(error).join(": "),
        });
      }
    }
  }

  /** The kind that was started last comes first. */
  #missing(): { readonly kind: string; readonly blueprint: B } | undefined {
    for (const [kind, blueprint] of [...this.#kinds].reverse()) {
      const count = [...this.#waiting.values()].filter((each) => each.kind === kind).length;
      if (count < this.#deps.size) return { kind, blueprint };
    }
    return undefined;
  }

  async #add(kind: string, blueprint: B): Promise<void> {
    const { networks, cgroups: host, locks, runDir: runs, log } = this.#deps;
    const { signal } = this.#closing;
    const id = newId();
    const place = { id, runDir: join(runs, id), cgroups: await host.plan(id) };
    const { runDir, cgroups } = place;
    await mkdir(runDir, { recursive: true, mode: 0o700 });
    let made: T;
    try {
      const { network: expected } = blueprint;
      await locks?.prepare(id);
      const onSpawn = await this.#group(runDir, cgroups);
      const network = expected && (await networks.prepare(id, expected, runDir, signal));
      made = await this.#craft.make(blueprint, { id, runDir, network, onSpawn }, signal);
    } catch (error) {
      await this.#clear(place);
      throw error;
    }
    const waiting = { ...place, kind, made };
    if (!this.#kinds.has(kind)) {
      await this.#end(waiting);
      return;
    }
    this.#waiting.set(id, waiting);
    void this.#craft.ended(made).then(() => this.#forget(id, made));
    this.#watch ??= setInterval(() => void this.#look(), poolLimits.watchIntervalMs).unref();
    log.info(`a ${this.#craft.what} waits for a sandbox`, { sandbox: id });
  }

  /** What waits can do without, as its sandbox can. */
  async #group(runDir: string, cgroups: readonly string[]): Promise<WaitingPlace["onSpawn"]> {
    if (cgroups.length === 0) return async () => {};
    const { cgroups: host, log } = this.#deps;
    await noteCgroups(runDir, cgroups);
    try {
      await host.create(cgroups);
    } catch (error) {
      log.warn(`a ${this.#craft.what} has no control group on the host`, { cause: messageChain(error).join(": ") });
      return async () => {};
    }
    return async ({ pid }) => await host.add(cgroups, pid);
  }

  /** One that has ended by itself. What is left of it is its sandbox's when that is just being made. */
  async #forget(id: string, made: T): Promise<void> {
    const found = this.#waiting.get(id);
    if (found?.made !== made || this.#given.has(id)) return;
    this.#waiting.delete(id);
    await this.#end(found);
  }

  async #look(): Promise<void> {
    if (this.#waiting.size === 0 || (await this.#hasRoom(0))) return;
    this.#deps.log.info(`memory is short: each ${this.#craft.what} that waits for a sandbox is ended`, {
      count: this.#waiting.size,
    });
    await this.drain();
  }

  async #hasRoom(memoryMib: number): Promise<boolean> {
    const availableMib = await this.#deps.availableMemoryMib().catch(() => 0);
    return availableMib >= memoryMib + poolLimits.reserveMib;
  }

  async #end(waiting: Waiting<T>): Promise<void> {
    await this.#craft.end(waiting.made).catch((error: unknown) => {
      this.#deps.log.warn(`a ${this.#craft.what} that waited could not be ended`, {
        cause: messageChain(error).join(": "),
      });
    });
    await this.#clear(waiting);
  }

  async #clear({ id, runDir, cgroups }: Pick<Waiting<T>, "id" | "runDir" | "cgroups">): Promise<void> {
    await this.#deps.cgroups.remove(cgroups);
    await this.#deps.locks?.giveUp(id);
    await this.#deps.networks.giveUp(id).catch((error: unknown) => {
      this.#deps.log.warn("the network of what waited is left", { cause: messageChain(error).join(": ") });
    });
    await rm(runDir, { recursive: true, force: true });
  }
}
