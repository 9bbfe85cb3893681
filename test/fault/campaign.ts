/**
 * Kills the owner of a root at given points, or at random instants under load, and looks at the world after each kill: the next
 * owner recovers within the limit, the witness has not noticed, the target is in its old state or its new one and can be used,
 * and nothing is left that belongs to nobody.
 *
 * One witness lives through all of it. Each owner recovers from the kill before, is looked at, brings the target to the base of
 * the next point, and is killed there.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Base, COUNTER, FLOOD, type KillPoint, TARGET } from "../programs/owner-commands.ts";
import { endLeaks } from "../support/leaks.ts";
import type { Random } from "../support/random.ts";
import { describeTarget, pointsOf, type Scenario } from "./kill-points.ts";
import { OwnerError, OwnerProcess } from "./owner-process.ts";
import { Counter, type FoundSandbox, findOrphans, listSandboxes, type Place } from "./world.ts";

const WITNESS = "witness";
/** From the call that opens the root until its sandboxes are there to be used: what is promised of a host that is not overloaded. */
export const RECOVERY_LIMIT_MS = 5_000;
/** Whatever the host does besides: longer than any agent may take. */
const RECOVERY_MAX_MS = 60_000;
const TRIES_MAX = 3;
const LOAD = { operation: "load", outcomes: ["running, main running", "running, main running"] } as const;

export interface Kill {
  readonly scenario: string;
  readonly point: string;
  /** The owner died where it was to. Otherwise the operation did not come by this point, and nothing was tested. */
  readonly hit: boolean;
  readonly recoveryMs: number;
  readonly outcome: string;
  readonly problems: readonly string[];
}

export class Campaign {
  readonly kills: Kill[] = [];
  readonly #place: Place;
  readonly #report: (line: string) => void;
  readonly #recoveryLimitMs: number;
  readonly #witness = new Counter(WITNESS);
  #owner: OwnerProcess | undefined;
  #witnessVmm: number | undefined;

  constructor(place: Place, report: (line: string) => void, recoveryLimitMs = RECOVERY_MAX_MS) {
    this.#place = place;
    this.#report = report;
    this.#recoveryLimitMs = recoveryLimitMs;
  }

  get witnessCount(): number {
    return this.#witness.count;
  }

  /** Makes the witness. */
  async begin(): Promise<void> {
    const owner = this.#spawn();
    await owner.ask({ do: "open" });
    await owner.ask({ do: "make witness", name: WITNESS, command: COUNTER });
    const sandboxes = await listSandboxes(owner);
    this.#witnessVmm = sandboxes.find(({ name }) => name === WITNESS)?.vmmPid;
  }

  /** What an operation's points are, by performing it once without a kill. */
  async list(scenario: Scenario): Promise<KillPoint[]> {
    const owner = await this.#prepared(scenario.base);
    return pointsOf(
      await owner.ask({ do: "operate", operation: scenario.operation, kill: undefined }),
      scenario.operation,
    );
  }

  async killAt(scenario: Scenario, point: KillPoint): Promise<Kill> {
    const name = `${point.phase} ${point.step}${point.occurrence === 1 ? "" : ` (${point.occurrence})`}`;
    let hit = false;
    for (let tries = 0; !hit && tries < TRIES_MAX; tries += 1) {
      const owner = await this.#prepared(scenario.base);
      hit = (await owner.askUnlessKilled({ do: "operate", operation: scenario.operation, kill: point })) === undefined;
    }
    if (!hit) await this.#owner?.kill();
    return await this.#lookAfter(scenario, name, hit);
  }

  /** A target that writes as fast as it can, and commands that are executed in it all the time. */
  async killUnderLoad(random: Random, times: number): Promise<void> {
    await (await this.#opened()).ask({ do: "prepare", base: "none", command: FLOOD });
    await (await this.#opened()).ask({ do: "prepare", base: "running", command: FLOOD });
    const flood = new Counter(TARGET);
    for (let time = 1; time <= times; time += 1) {
      const owner = await this.#opened();
      await owner.ask({ do: "load", sandbox: TARGET, loops: 2 });
      const afterMs = random.below(1_500);
      await sleep(afterMs);
      await owner.kill();
      await this.#lookAfter(LOAD, `${time}: after ${afterMs} ms`, true, flood);
    }
  }

  /** Deletes everything and looks once more. Answers what is left. */
  async end(): Promise<string[]> {
    const owner = await this.#opened();
    for (const { name } of await listSandboxes(owner)) await owner.ask({ do: "delete", sandbox: name });
    const left = await findOrphans(this.#place, [], owner.pid);
    await owner.ask({ do: "release" });
    await owner.kill();
    return left;
  }

  /** Whatever happened. */
  async abandon(): Promise<void> {
    await this.#owner?.kill();
    await endLeaks(this.#place);
  }

  async #lookAfter(
    { operation, outcomes, next }: Pick<Scenario, "outcomes" | "next"> & { readonly operation: string },
    point: string,
    hit: boolean,
    flood?: Counter,
  ): Promise<Kill> {
    const problems: string[] = [];
    const owner = this.#spawn();
    const { sandboxes, recoveryMs } = await this.#recover(owner);
    if (recoveryMs > this.#recoveryLimitMs) problems.push(`recovery took ${recoveryMs} ms`);
    const outcome = describeTarget(sandboxes);
    if (!outcomes.includes(outcome)) problems.push(`the target is ${outcome}`);
    problems.push(...this.#judge(sandboxes));
    try {
      problems.push(...(await this.#use(owner, outcome, flood)));
    } catch (error) {
      if (!(error instanceof OwnerError)) throw error;
      problems.push(error.message);
    }
    // What was hibernated has been woken by its use.
    const now = outcome.startsWith("hibernated") ? await listSandboxes(owner) : sandboxes;
    problems.push(...(await findOrphans(this.#place, now, owner.pid)).map((orphan) => `left behind: ${orphan}`));
    if (next !== undefined && outcome === "gone") problems.push(...(await this.#makeNext(owner, next)));
    const kill = { scenario: operation, point, hit, recoveryMs, outcome, problems };
    this.kills.push(kill);
    const word = problems.length > 0 ? "FAIL" : hit ? "ok" : "not reached";
    this.#report(`${word} ${operation}: ${point}: ${recoveryMs} ms, ${outcome}`);
    for (const problem of problems) this.#report(`  ${problem}`);
    if (problems.length > 0) this.#report(owner.log.replaceAll(/^/gm, "    | "));
    return kill;
  }

  /** What was cut short can be done. */
  async #makeNext(owner: OwnerProcess, base: Base): Promise<string[]> {
    try {
      await owner.ask({ do: "prepare", base, command: COUNTER });
      const sandboxes = await listSandboxes(owner);
      const orphans = await findOrphans(this.#place, sandboxes, owner.pid);
      return [...(await this.#use(owner, describeTarget(sandboxes), undefined)), ...orphans].map(
        (problem) => `after the next create: ${problem}`,
      );
    } catch (error) {
      if (!(error instanceof OwnerError)) throw error;
      return [`the next create: ${error.message}`];
    }
  }

  /** Whether the sandboxes work as they did. */
  async #use(owner: OwnerProcess, outcome: string, flood: Counter | undefined): Promise<string[]> {
    const problems = await this.#witness.check(owner);
    if (flood !== undefined) {
      problems.push(...(await flood.check(owner)));
      const leftovers = await owner.ask({ do: "leftovers", sandbox: TARGET });
      problems.push(...leftovers.field("wrong").array((text) => text.string()));
    } else if (outcome.startsWith("running") || outcome.startsWith("hibernated")) {
      const echo = await owner.ask({ do: "exec", sandbox: TARGET, command: ["echo", "alive"] });
      if (echo.field("stdout").string() !== "alive\n") problems.push("the target does not execute commands");
    }
    return problems;
  }

  /** Until every sandbox can be used: one whose agent is slow is waited for after the root is open. */
  async #recover(owner: OwnerProcess): Promise<{ sandboxes: FoundSandbox[]; recoveryMs: number }> {
    const answer = await owner.ask({ do: "open" });
    const begin = performance.now() - answer.field("tookMs").number();
    for (;;) {
      const sandboxes = await listSandboxes(owner);
      const recoveryMs = Math.round(performance.now() - begin);
      const isComplete = sandboxes.every(({ problem }) => problem === undefined);
      if (isComplete || recoveryMs > RECOVERY_MAX_MS) return { sandboxes, recoveryMs };
      await sleep(100);
    }
  }

  #judge(sandboxes: readonly FoundSandbox[]): string[] {
    const problems = sandboxes.flatMap(({ name, problem }) => (problem === undefined ? [] : [`${name}: ${problem}`]));
    const witness = sandboxes.find(({ name }) => name === WITNESS);
    const state = `${witness?.state}, ${witness?.containers[0]?.state}`;
    if (state !== "running, running" || witness?.vmmPid !== this.#witnessVmm) problems.push(`the witness is ${state}`);
    return problems;
  }

  /** A target that a kill has broken was reported; the next point gets a new one. */
  async #prepared(base: Base): Promise<OwnerProcess> {
    const owner = await this.#opened();
    try {
      await owner.ask({ do: "prepare", base, command: COUNTER });
    } catch (error) {
      if (!(error instanceof OwnerError)) throw error;
      this.#report(`  the target cannot be brought to ${base}: ${error.message}`);
      const sandboxes = await listSandboxes(owner);
      if (sandboxes.some(({ name }) => name === TARGET)) await owner.ask({ do: "delete", sandbox: TARGET });
      await owner.ask({ do: "prepare", base, command: COUNTER });
    }
    return owner;
  }

  /** The owner that is there, with the root open. */
  async #opened(): Promise<OwnerProcess> {
    if (this.#owner !== undefined && !this.#owner.hasEnded) return this.#owner;
    const owner = this.#spawn();
    await owner.ask({ do: "open" });
    return owner;
  }

  #spawn(): OwnerProcess {
    const { rootDir, runDir, testId } = this.#place;
    const environment = { BELLJAR_TEST_ID: testId, BELLJAR_TEMPLATES: join(rootDir, "templates") };
    this.#owner = new OwnerProcess({ rootDir, runDir, environment });
    return this.#owner;
  }
}
