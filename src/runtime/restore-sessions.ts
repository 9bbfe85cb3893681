/**
 * Restores whose containers are handed in one by one, by somebody who knows each of them for itself. Nothing is made before the last one
 * that the checkpoint has is there; then all are restored at once, or none. Only this process knows of a session: when it ends, there was
 * none.
 */
import { BelljarError, type Clock, checkpointLimits, newId } from "../base/index.ts";
import { abortable } from "../sandbox/index.ts";
import type { CallOptions, RestoredContainer, RestoreSession, SandboxHandle } from "./interface.ts";
import { checkGiven, refuseSecond, unknownName } from "./restored-containers.ts";

export interface RestoreSessionDeps {
  readonly clock: Clock;
  /** Names of the checkpoint's containers. */
  readonly expected: readonly string[];
  readonly restore: (containers: readonly RestoredContainer[], signal: AbortSignal) => Promise<SandboxHandle>;
}

export class RestoreSessions {
  readonly #sessions = new Map<string, OpenSession>();

  /** @throws BelljarError `DAEMON_BUSY` when there are too many */
  begin(deps: RestoreSessionDeps): OpenSession {
    if (this.#sessions.size >= checkpointLimits.restoreSessionsMax) {
      const over = [...this.#sessions.values()].find(({ isOver }) => isOver);
      if (over === undefined) {
        throw new BelljarError("DAEMON_BUSY", `${this.#sessions.size} restores wait for their containers already`);
      }
      over.forget();
    }
    const session = new OpenSession(deps, () => void this.#sessions.delete(session.id));
    this.#sessions.set(session.id, session);
    return session;
  }

  /** @throws BelljarError `CHECKPOINT_NOT_FOUND` */
  get(id: string): OpenSession {
    const session = this.#sessions.get(id);
    if (session !== undefined) return session;
    throw new BelljarError("CHECKPOINT_NOT_FOUND", `there is no restore ${JSON.stringify(id.slice(0, 80))}`, {
      remedy: "A restore that was not completed in time, or whose daemon has ended, is over: begin it again.",
    });
  }

  async end(): Promise<void> {
    for (const session of [...this.#sessions.values()]) await session[Symbol.asyncDispose]();
  }
}

export class OpenSession implements RestoreSession {
  readonly id = newId();
  readonly expected: readonly string[];
  readonly #deps: RestoreSessionDeps;
  readonly #onEnd: () => void;
  readonly #given: RestoredContainer[] = [];
  /** Fires when it has failed or was given up. */
  readonly #over = new AbortController();
  readonly #forgotten = new AbortController();
  isOver = false;
  readonly #sandbox = Promise.withResolvers<SandboxHandle>();
  #restoring: Promise<void> | undefined;

  constructor(deps: RestoreSessionDeps, onEnd: () => void) {
    this.expected = deps.expected;
    this.#deps = deps;
    this.#onEnd = onEnd;
    this.#sandbox.promise.catch(() => {});
    void this.#watch();
  }

  async add(container: RestoredContainer): Promise<void> {
    const { name } = container;
    this.#over.signal.throwIfAborted();
    for (const other of this.#given) refuseSecond(container, other);
    checkGiven([container]);
    if (!this.expected.includes(name)) {
      const detail = unknownName(
        name,
        this.expected.map((each) => ({ name: each })),
      );
      const error = new BelljarError("CHECKPOINT_MISMATCH", detail, { facts: { name, names: [...this.expected] } });
      this.#fail(error);
      throw error;
    }
    this.#given.push(container);
    // As many as there are, and none twice: that are all.
    if (this.#given.length < this.expected.length) return;
    this.#restoring = this.#restore();
    await this.#sandbox.promise;
  }

  async wait({ signal }: CallOptions = {}): Promise<SandboxHandle> {
    return await abortable(this.#sandbox.promise, signal);
  }

  /** What was not restored yet is given up; a sandbox that was restored stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.isOver) this.#fail(new BelljarError("CANCELLED", "the restore was given up"));
    await this.#restoring;
    this.forget();
  }

  forget(): void {
    this.#forgotten.abort();
    this.#onEnd();
  }

  async #restore(): Promise<void> {
    try {
      this.#sandbox.resolve(await this.#deps.restore(this.#given, this.#over.signal));
      this.isOver = true;
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.isOver = true;
    this.#over.abort(error);
    this.#sandbox.reject(error);
  }

  /** All containers have this long to be given; so long, at least, its end can be asked for. */
  async #watch(): Promise<void> {
    const timeoutMs = checkpointLimits.restoreSessionTimeoutMs;
    await this.#deps.clock.sleep(timeoutMs, this.#forgotten.signal).catch(() => {});
    await this.#restoring;
    if (this.isOver) {
      this.forget();
      return;
    }
    const missing = this.expected.filter((name) => !this.#given.some((each) => each.name === name));
    const message = `these containers were not given within ${timeoutMs} ms: ${missing.join(", ")}`;
    this.#fail(new BelljarError("DEADLINE_EXCEEDED", message, { facts: { missing } }));
    this.forget();
  }
}
