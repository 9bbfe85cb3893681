/**
 * What holds for every call: how many there may be, when they end because the daemon does, and in which form errors leave.
 * A call that waits for something that may take for ever ends when the daemon is told to stop; the others may finish.
 */
import type { HandlerContext, Interceptor } from "@connectrpc/connect";
import { apiLimits, BelljarError, type Log } from "../base/index.ts";
import { toConnectError } from "./wire/errors.ts";

export interface CallsDeps {
  readonly log: Log;
  readonly maxCalls?: number | undefined;
}

export class Calls {
  readonly #deps: CallsDeps;
  readonly #draining = new AbortController();
  readonly #ended = new AbortController();
  #underWay = 0;
  #idle = Promise.withResolvers<void>();

  constructor(deps: CallsDeps) {
    this.#deps = deps;
  }

  /** Fires when every call must end, the unfinished ones too. */
  get endSignal(): AbortSignal {
    return this.#ended.signal;
  }

  /** For a call that waits: fires when its client goes, and when the daemon is told to stop. */
  waiting(context: HandlerContext): AbortSignal {
    return AbortSignal.any([context.signal, this.#draining.signal]);
  }

  /** Ends the calls that wait, lets the others finish for a while, then ends them too. */
  async drain(timeoutMs: number): Promise<void> {
    this.#draining.abort(stoppedError());
    let timer: NodeJS.Timeout | undefined;
    if (this.#underWay > 0) {
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, timeoutMs);
      });
      await Promise.race([this.#idle.promise, late]);
      clearTimeout(timer);
    }
    this.#ended.abort(stoppedError());
  }

  readonly interceptor: Interceptor = (next) => async (request) => {
    const { name } = request.method;
    const leave = this.#enter(name);
    try {
      const response = await next(request);
      if (!response.stream) {
        leave();
        return response;
      }
      return { ...response, message: this.#stream(name, response.message, leave) };
    } catch (error) {
      leave();
      throw this.#failed(name, error);
    }
  };

  #enter(name: string): () => void {
    if (this.#draining.signal.aborted) throw toConnectError(stoppedError());
    const max = this.#deps.maxCalls ?? apiLimits.callsMax;
    if (this.#underWay >= max) {
      const message = `the daemon has ${max} calls under way and takes no more`;
      throw toConnectError(new BelljarError("DAEMON_BUSY", message, { facts: { max } }));
    }
    this.#underWay += 1;
    this.#deps.log.debug("call", { name });
    let isIn = true;
    return () => {
      if (!isIn) return;
      isIn = false;
      this.#underWay -= 1;
      if (this.#underWay > 0) return;
      this.#idle.resolve();
      this.#idle = Promise.withResolvers();
    };
  }

  async *#stream<T>(name: string, messages: AsyncIterable<T>, leave: () => void): AsyncIterable<T> {
    try {
      yield* messages;
    } catch (error) {
      throw this.#failed(name, error);
    } finally {
      leave();
    }
  }

  #failed(name: string, thrown: unknown): Error {
    const error = BelljarError.from(thrown);
    if (error.reason === "INTERNAL") this.#deps.log.warn("call failed", { name, error: error.message });
    return toConnectError(thrown);
  }
}

function stoppedError(): BelljarError {
  return new BelljarError("DAEMON_STOPPED", "the daemon was told to stop");
}
