/**
 * Looks at a sandbox that runs, again and again: does its VMM answer, does its agent? A part has failed when several looks in a
 * row did; one that is late or lost may be the host's fault. The first part that has failed is told, once; nothing more is told
 * until it answers again, and from then on failures count anew.
 *
 * A paused sandbox is not looked at: whoever pauses it stops the monitor first, and then nothing is told any more.
 */
import { BelljarError, type Clock, sandboxLimits } from "../base/index.ts";

export const monitoredParts = ["vmm", "agent"] as const;
export type MonitoredPart = (typeof monitoredParts)[number];

export interface MonitorDeps {
  /** Each resolves when the part answers; its signal fires when its time is over or nobody wants to know any more. */
  readonly checks: Readonly<Record<MonitoredPart, (signal: AbortSignal) => Promise<unknown>>>;
  readonly clock: Clock;
  /** Told once for each time that a part fails; `message` says what failed, and how often in a row. */
  readonly onFailure: (part: MonitoredPart, message: string) => void;
  readonly intervalMs?: number | undefined;
  readonly checkTimeoutMs?: number | undefined;
  readonly failuresNeeded?: number | undefined;
}

export class Monitor {
  readonly #deps: MonitorDeps;
  #stop: AbortController | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(deps: MonitorDeps) {
    this.#deps = deps;
  }

  /** Counts from zero. Idempotent while it runs. @param graceMs before the first look */
  start(graceMs = 0): void {
    if (this.#stop !== undefined) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#running = this.#running.then(() => this.#watch(stop.signal, graceMs));
  }

  /** Waits for a look that is under way; nothing is told afterwards. Idempotent. */
  async stop(): Promise<void> {
    this.#stop?.abort();
    this.#stop = undefined;
    await this.#running;
  }

  async #watch(signal: AbortSignal, graceMs: number): Promise<void> {
    const { clock, onFailure } = this.#deps;
    if (graceMs > 0) await clock.sleep(graceMs, signal).catch(() => {});
    const needed = this.#deps.failuresNeeded ?? sandboxLimits.monitorFailures;
    const failures: Record<MonitoredPart, number> = { vmm: 0, agent: 0 };
    let failed: MonitoredPart | undefined;
    for (;;) {
      await clock.sleep(this.#deps.intervalMs ?? sandboxLimits.monitorIntervalMs, signal).catch(() => {});
      if (signal.aborted) return;
      const problems = await Promise.all(monitoredParts.map((part) => this.#look(part, signal)));
      for (const [index, part] of monitoredParts.entries()) {
        const problem = problems[index];
        failures[part] = problem === undefined ? 0 : failures[part] + 1;
        if (signal.aborted) return;
        if (failed === part && problem === undefined) failed = undefined;
        // What depends on a part that has failed may fail too: that is no news, and does not count.
        if (failed !== undefined) failures[part] = 0;
        if (problem === undefined || failures[part] < needed) continue;
        onFailure(part, `${names[part]} did not answer ${needed} times in a row: ${problem}`);
        failed = part;
        failures[part] = 0;
      }
    }
  }

  /** Why the part did not answer; undefined when it did. */
  async #look(part: MonitoredPart, signal: AbortSignal): Promise<string | undefined> {
    const { checks, clock } = this.#deps;
    const timeoutMs = this.#deps.checkTimeoutMs ?? sandboxLimits.agentCheckTimeoutMs;
    const over = new AbortController();
    const looking = (async () => await checks[part](AbortSignal.any([signal, over.signal])))();
    const check = looking.then(
      () => undefined,
      (error: unknown) => BelljarError.from(error).message,
    );
    const deadline = clock.sleep(timeoutMs, over.signal).then(
      () => `no answer within ${timeoutMs} ms`,
      () => undefined,
    );
    const problem = await Promise.race([check, deadline]);
    over.abort();
    return problem;
  }
}

const names: Readonly<Record<MonitoredPart, string>> = { vmm: "the VM's process", agent: "the guest's agent" };
