/**
 * What holds for every call: how many there may be, when they end because the daemon does, and in which form errors leave.
 * A call that waits for something that may take for ever ends when the daemon is told to stop; the others may finish.
 */
import type { HandlerContext, Interceptor } from "@connectrpc/connect";
import { apiLimits, BelljarError, type Log } from "../base/index.ts";
import { API_VERSION, API_VERSION_HEADER } from "../protocol/index.ts";
import { type CallFacts, CLIENT_HEADER, logCall, sandboxOf } from "./call-log.ts";
import type { CallOutcome } from "./metrics/daemon-metrics.ts";
import type { Tracer } from "./traces/tracer.ts";
import { knownError, toConnectError } from "./wire/errors.ts";

export interface CallsDeps {
  readonly log: Log;
  readonly maxCalls?: number | undefined;
  /** Told of every call that has ended. */
  readonly onCall?: ((outcome: CallOutcome) => void) | undefined;
  readonly tracer?: Tracer | undefined;
}

/** W3C's. */
const TRACEPARENT_HEADER = "traceparent";

/** They take as long as somebody else takes: their durations say nothing. */
const WAITING_METHODS = new Set(["WaitContainer", "WaitProcess", "WriteInput"]);

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

  get underWay(): number {
    return this.#underWay;
  }

  readonly interceptor: Interceptor = (next) => async (request) => {
    const message = request.stream ? undefined : request.message;
    const call: Call = {
      facts: { method: request.method.name, message, client: request.header.get(CLIENT_HEADER) },
      startedMs: performance.now(),
      leave: this.#enter(),
    };
    try {
      checkVersion(request.header.get(API_VERSION_HEADER));
      const response = await this.#traced(call, request.header.get(TRACEPARENT_HEADER), () => next(request));
      if (response.stream) return { ...response, message: this.#stream(call, response.message) };
      call.leave();
      this.#end(call, !WAITING_METHODS.has(request.method.name));
      return response;
    } catch (error) {
      call.leave();
      throw this.#fail(call, error);
    }
  };

  #enter(): () => void {
    if (this.#draining.signal.aborted) throw toConnectError(stoppedError());
    const max = this.#deps.maxCalls ?? apiLimits.callsMax;
    if (this.#underWay >= max) {
      const message = `the daemon has ${max} calls under way and takes no more`;
      throw toConnectError(new BelljarError("DAEMON_BUSY", message, { facts: { max } }));
    }
    this.#underWay += 1;
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

  async *#stream<T>(call: Call, messages: AsyncIterable<T>): AsyncIterable<T> {
    let thrown: unknown;
    try {
      yield* messages;
    } catch (error) {
      thrown = error;
      throw this.#fail(call, error);
    } finally {
      call.leave();
      if (thrown === undefined) this.#end(call, false);
    }
  }

  #traced<T>({ facts }: Call, traceparent: string | null, work: () => Promise<T>): Promise<T> {
    const { tracer } = this.#deps;
    if (tracer === undefined) return work();
    const attributes = { "belljar.sandbox": sandboxOf(facts.message), "belljar.client": facts.client ?? undefined };
    return tracer.operation({ name: facts.method, attributes, traceparent }, work);
  }

  #end({ facts, startedMs }: Call, isTimed: boolean): void {
    const durationMs = performance.now() - startedMs;
    logCall(this.#deps.log, facts, durationMs);
    this.#deps.onCall?.({
      method: facts.method,
      reason: undefined,
      seconds: isTimed ? durationMs / 1000 : undefined,
    });
  }

  #fail({ facts, startedMs }: Call, thrown: unknown): Error {
    logCall(this.#deps.log, facts, performance.now() - startedMs, thrown);
    this.#deps.onCall?.({ method: facts.method, reason: knownError(thrown).reason, seconds: undefined });
    return toConnectError(thrown);
  }
}

interface Call {
  readonly facts: CallFacts;
  readonly startedMs: number;
  readonly leave: () => void;
}

/** Whoever says nothing, such as curl, is taken at its word. */
function checkVersion(said: string | null): void {
  if (said === null || said === String(API_VERSION)) return;
  const client = said.slice(0, 20);
  throw new BelljarError("API_VERSION", `the client speaks version ${client} of the API, this daemon ${API_VERSION}`, {
    facts: { client, daemon: API_VERSION },
  });
}

function stoppedError(): BelljarError {
  return new BelljarError("DAEMON_STOPPED", "the daemon was told to stop");
}
