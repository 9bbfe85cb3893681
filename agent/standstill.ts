/**
 * Has the whole sandbox stand still, so that what is saved of it is of one instant, and go on as whoever it is then. A copy comes up in
 * the middle of it: still frozen, with the calls of another host that nobody waits for any more.
 *
 * Invariants: between `freeze` and `thaw` no process starts; nothing of a container runs before it can see who the sandbox is now.
 * On the way of a sandbox without hooks no program is started, and what is done while everything stands still is done at once.
 */
import { BelljarError } from "../src/base/errors.ts";
import { standstillLimits } from "../src/base/limits.ts";
import type { PlannedWake } from "../src/protocol/wake.ts";
import type { Cgroups } from "./cgroups.ts";
import type { ContainerTable } from "./container-table.ts";
import { endProcesses } from "./end-processes.ts";
import { findHooks, type HookFailure, type HookName, type Hooks, runHooks } from "./hooks.ts";
import type { IdentityEvent, IdentityFiles, IdentityNews } from "./identity-files.ts";
import { Turns } from "./turns.ts";
import { type WakePlanDeps, wakePlan } from "./wake-plan.ts";

export interface StandstillDeps extends WakePlanDeps {
  readonly cgroups: Pick<Cgroups, "freeze" | "freezeAll" | "restPlan" | "thaw" | "thawAll" | "thawPlan">;
  readonly identity: Pick<IdentityFiles, "announce" | "plan">;
  /** Whether the program is there that wakes copies without the agent. */
  readonly hasWaker: () => boolean;
}

export interface ThawNews extends IdentityNews {
  readonly endProcesses: boolean;
  /** The wake program has told the containers, with this time, and let them run. */
  readonly toldAtMs?: number | undefined;
}

export interface Frozen {
  readonly failures: Failures;
  /** Undefined when only the agent can bring a copy back. */
  readonly wake: PlannedWake | undefined;
}

type Failures = readonly HookFailure[];

export class Standstill {
  readonly #deps: StandstillDeps;
  readonly #containers: ContainerTable;
  readonly #turns = new Turns();
  readonly #launches = new Set<Promise<unknown>>();
  /** There while processes may not start; resolves when they may again. */
  #closed: PromiseWithResolvers<void> | undefined;
  /** What `freeze` found and answered; undefined unless everything stands still. */
  #frozen: (Frozen & { readonly saving: boolean; readonly hooks: readonly Hooks[] }) | undefined;
  /** Containers that stand still each by itself while something else is rehearsed; undefined unless it is. */
  #held: readonly string[] | undefined;
  /** The last thaw, and its answer, in case it is repeated. */
  #thawed: { readonly words: string; readonly failures: Failures } | undefined;

  constructor(deps: StandstillDeps, containers: ContainerTable) {
    this.#deps = deps;
    this.#containers = containers;
  }

  /** Starts something when processes may start. */
  async launch<T>(start: () => Promise<T>, signal: AbortSignal): Promise<T> {
    while (this.#closed !== undefined) {
      await Promise.race([this.#closed.promise, aborted(signal)]);
      // In a copy: the one who asked has the source, and not this.
      signal.throwIfAborted();
    }
    const launching = start();
    const settled = launching.then(
      () => {},
      () => {},
    );
    this.#launches.add(settled);
    void settled.then(() => this.#launches.delete(settled));
    return await launching;
  }

  /**
   * Resolves when every process of every container stands still. Nothing has changed when it rejects, but that hooks have run.
   * @param saving and not only to stand still for a while: hooks are told, also when it goes on
   * @throws BelljarError `DEADLINE_EXCEEDED`
   */
  freeze(saving: boolean, signal: AbortSignal): Promise<Frozen> {
    return this.#turns.take(async () => {
      if (this.#frozen !== undefined) return this.#frozen;
      this.#closed ??= Promise.withResolvers();
      try {
        await this.#launchesEnd();
        const hooks = await this.#findHooks();
        const failures = saving ? await runHooks(hooks, "before-save", {}) : [];
        signal.throwIfAborted();
        await this.#deps.cgroups.freezeAll(signal);
        if (signal.aborted) await this.#deps.cgroups.thawAll();
        signal.throwIfAborted();
        const wake = this.#deps.hasWaker() && hooks.length === 0 ? this.#plan() : undefined;
        this.#frozen = { saving, hooks, failures, wake };
        return this.#frozen;
      } catch (error) {
        this.#open();
        throw error;
      }
    });
  }

  /**
   * @param prepare gives the kernel what it needs for its new life (random numbers, time, name, network), unless it has that by now
   * @throws BelljarError `INVALID_ARGUMENT`, `AGENT_FAILED`; everything still stands still then
   */
  thaw(news: ThawNews, prepare: () => Promise<void>): Promise<Failures> {
    return this.#turns.take(async () => {
      const words = JSON.stringify(news);
      if (this.#frozen === undefined) {
        if (this.#thawed?.words === words) return this.#thawed.failures;
      }
      await prepare();
      // Nothing stood still, or nobody knows any more: it goes on as who it is.
      if (this.#frozen === undefined && news.event === "resumed") return await this.#goOn();
      const hooks = this.#frozen?.hooks ?? (await this.#findHooks());
      const event = news.event === "" ? undefined : this.#deps.identity.announce(news, news.toldAtMs);
      if (news.endProcesses) await endProcesses(this.#containers.created(), this.#deps.procDir);
      // It only was to be said once.
      if (this.#held !== undefined) return [];
      // What else a copy must not have from its source goes here, before anything runs: neighbours in the network, for one.
      const isTold = event !== undefined && (event !== "resumed" || this.#frozen?.saving === true);
      await this.#goOn();
      const failures = !isTold ? [] : await runHooks(hooks, HOOK_AFTER[event], environment(news));
      this.#thawed = { words, failures };
      return failures;
    });
  }

  /**
   * What stands still goes on doing so, container by container, while others may be made and run: code that has run once is quick.
   * @param over everything stands still again as before. May be repeated.
   * @throws BelljarError `INVALID_ARGUMENT`, `DEADLINE_EXCEEDED`
   */
  rehearse(over: boolean, signal: AbortSignal): Promise<void> {
    return this.#turns.take(async () => {
      if (this.#frozen === undefined) throw new BelljarError("INVALID_ARGUMENT", "there is nothing that stands still");
      const { cgroups } = this.#deps;
      if (!over) {
        // Those that were paused stay so afterwards.
        this.#held ??= this.#containers.created().flatMap(({ id, phase }) => (phase === "running" ? [id] : []));
        for (const id of this.#held) await cgroups.freeze(id);
        await cgroups.thawAll();
        this.#open();
      } else if (this.#held !== undefined) {
        this.#closed ??= Promise.withResolvers();
        await this.#launchesEnd();
        await cgroups.freezeAll(signal);
        await this.#letGo();
      }
    });
  }

  async #letGo(): Promise<void> {
    for (const id of this.#held ?? []) await this.#deps.cgroups.thaw(id);
    this.#held = undefined;
  }

  async #goOn(): Promise<Failures> {
    await this.#deps.cgroups.thawAll();
    this.#frozen = undefined;
    this.#open();
    return [];
  }

  #open(): void {
    this.#closed?.resolve();
    this.#closed = undefined;
  }

  #plan(): PlannedWake {
    return wakePlan(this.#deps, this.#containers.created());
  }

  async #launchesEnd(): Promise<void> {
    if (this.#launches.size === 0) return;
    const { promise: late, reject } = Promise.withResolvers<never>();
    const waitedMs = standstillLimits.launchesTimeoutMs;
    const timer = setTimeout(() => {
      reject(new BelljarError("DEADLINE_EXCEEDED", `a start of a process did not end within ${waitedMs} ms`));
    }, waitedMs);
    try {
      await Promise.race([Promise.all(this.#launches), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #findHooks(): Promise<readonly Hooks[]> {
    return await findHooks(this.#containers.created().flatMap((container) => container.hookPlace() ?? []));
  }
}

const HOOK_AFTER: { readonly [event in IdentityEvent]: HookName } = {
  resumed: "after-resume",
  restored: "after-restore",
  forked: "after-restore",
};

/** The same words as in the file. */
function environment({ event, generation, sandboxId }: ThawNews): Readonly<Record<string, string>> {
  return { BELLJAR_EVENT: event, BELLJAR_GENERATION: String(generation), BELLJAR_SANDBOX: sandboxId };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
