/**
 * What a sandbox does for itself in the long run: a trail of checkpoints while it runs, and a new start when it has failed. What is about to
 * be done stands in its state, so that the next owner does it.
 */
import { type Clock, hibernationLimits, messageChain } from "../base/index.ts";
import type { ContainerState, HostSandbox } from "../container/index.ts";
import type { SandboxState } from "../sandbox/index.ts";

type State = SandboxState<ContainerState>;

/** By the sandbox's id. */
export interface Trails {
  /** Takes one, and removes those that are too many. */
  take(id: string): Promise<void>;
  /** When the latest was taken, in milliseconds since the epoch. */
  lastMs(id: string): Promise<number | undefined>;
  /** Goes back to its latest checkpoint, of whatever kind. False when there is none. */
  goBack(id: string): Promise<boolean>;
}

export interface KeeperDeps {
  readonly sandbox: HostSandbox;
  readonly trails: Trails;
  readonly clock: Clock;
  /** What has stopped starts again: the sandbox, or its first container. */
  readonly start: () => Promise<void>;
}

export class Keeper {
  readonly #deps: KeeperDeps;
  #trail: AbortController | undefined;
  #restart: AbortController | undefined;

  constructor(deps: KeeperDeps) {
    this.#deps = deps;
    deps.sandbox.listen((before, after) => {
      if (hasFailed(after) && !hasFailed(before)) this.#failed(after);
    });
  }

  /** Goes on with what stands in the state. Idempotent. */
  start(): void {
    const { state } = this.#deps.sandbox;
    if (state.settings.trail !== undefined && this.#trail === undefined) {
      this.#trail = new AbortController();
      void this.#leaveTrail(this.#trail.signal);
    }
    if (state.restarts?.nextAtMs !== undefined) this.#restartAt(state.restarts.nextAtMs);
    else if (hasFailed(state)) this.#failed(state);
  }

  stop(): void {
    this.#trail?.abort();
    this.#trail = undefined;
    this.#restart?.abort();
    this.#restart = undefined;
  }

  async #leaveTrail(signal: AbortSignal): Promise<void> {
    const { sandbox, trails, clock } = this.#deps;
    let lastMs = await this.#lastMs();
    for (;;) {
      const everyMs = sandbox.state.settings.trail?.everyMs;
      if (everyMs === undefined) return;
      // A clock that has jumped makes it neither hurry nor wait for long.
      const sinceMs = clock.nowMs() - (lastMs ?? clock.nowMs());
      await clock.sleep(Math.min(everyMs, Math.max(0, everyMs - sinceMs)), signal).catch(() => {});
      if (signal.aborted || sandbox.gone.aborted) return;
      lastMs = clock.nowMs();
      if (sandbox.state.state !== "running") continue;
      try {
        await trails.take(sandbox.id);
      } catch (error) {
        if (!sandbox.gone.aborted) this.#warn("a checkpoint of the trail could not be taken", error);
      }
    }
  }

  /** One that cannot be told is taken for now: the next is due after a whole interval. */
  async #lastMs(): Promise<number | undefined> {
    try {
      return await this.#deps.trails.lastMs(this.#deps.sandbox.id);
    } catch (error) {
      this.#warn("the latest checkpoint of a trail was not found out", error);
      return undefined;
    }
  }

  #failed({ settings, restarts, containers }: State): void {
    const { sandbox, clock } = this.#deps;
    const { restart } = settings;
    if (restart === undefined || this.#restart !== undefined) return;
    const main = containers[0];
    const ranMs = clock.nowMs() - (main?.startedAtMs ?? clock.nowMs());
    const count = ranMs >= hibernationLimits.restartForgivenMs ? 0 : (restarts?.count ?? 0);
    if (count >= (restart.maxRetries ?? hibernationLimits.restartsMax)) {
      sandbox.log.warn("a sandbox that has failed is not started again", { times: count });
      return;
    }
    const { restartDelayMs, restartDelayMaxMs } = hibernationLimits;
    const nextAtMs = clock.nowMs() + Math.min(restartDelayMaxMs, restartDelayMs * 2 ** Math.min(count, 16));
    const note = sandbox.update((state) => ({ ...state, restarts: { count: count + 1, nextAtMs } }), { force: true });
    note.catch((error: unknown) => this.#warn("a restart could not be noted", error));
    this.#restartAt(nextAtMs);
  }

  #restartAt(atMs: number): void {
    if (this.#restart !== undefined) return;
    this.#restart = new AbortController();
    void this.#startAgain(atMs, this.#restart.signal);
  }

  async #startAgain(atMs: number, signal: AbortSignal): Promise<void> {
    const { sandbox, clock } = this.#deps;
    const waitMs = Math.min(hibernationLimits.restartDelayMaxMs, Math.max(0, atMs - clock.nowMs()));
    await clock.sleep(waitMs, signal).catch(() => {});
    if (signal.aborted || sandbox.gone.aborted) return;
    try {
      if (hasFailed(sandbox.state)) await this.#comeBack();
    } catch (error) {
      if (!sandbox.gone.aborted) this.#warn("a sandbox that has failed could not be started again", error);
    }
    // After `stop` and `start` there may be another one, which is not this one's to take away.
    if (sandbox.gone.aborted || signal.aborted) return;
    this.#restart = undefined;
    try {
      await sandbox.update(withoutNext, { force: true });
    } catch (error) {
      this.#warn("a restart that is done could not be noted", error);
    }
    if (hasFailed(sandbox.state)) this.#failed(sandbox.state);
  }

  async #comeBack(): Promise<void> {
    const { sandbox, trails, start } = this.#deps;
    if (sandbox.state.settings.restart?.policy === "from-checkpoint") {
      try {
        if (await trails.goBack(sandbox.id)) return;
      } catch (error) {
        this.#warn("a sandbox that has failed could not go back to its checkpoint", error);
      }
    }
    await start();
  }

  #warn(message: string, error: unknown): void {
    this.#deps.sandbox.log.warn(message, { cause: messageChain(error).join(": ") });
  }
}

/** It has stopped, or its first container has, and nobody had asked for it. */
export function hasFailed({ state, stopAsked, end, containers, settings, pending }: State): boolean {
  if (settings.restart === undefined || stopAsked === true || pending !== undefined) return false;
  const main = containers[0];
  if (main?.state !== "stopped" || main.pending !== undefined) return false;
  // One that stops with its first container is about to.
  if (state !== "stopped" && (state !== "running" || settings.stopWithMain)) return false;
  return end !== undefined || main.end !== undefined || (main.status?.exitCode ?? 0) !== 0;
}

function withoutNext(state: State): State {
  if (state.restarts?.nextAtMs === undefined) return state;
  return { ...state, restarts: { count: state.restarts.count } };
}
