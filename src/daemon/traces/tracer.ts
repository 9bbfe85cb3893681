/**
 * Traces: a span for each operation that a client asks for, and one below it for each step that it takes in the world outside (QMP,
 * agent, disk, child process). Off unless somebody wants them; then the steps' channel has a listener, and each step belongs to
 * the operation in whose asynchronous context it is taken.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { randomBytes } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { BelljarError, STEP_CHANNEL, type Step, traceLimits } from "../../base/index.ts";

export interface Span {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  readonly isOperation: boolean;
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: Readonly<Record<string, string>>;
  /** Why it failed. */
  readonly error: string | undefined;
}

export interface OperationFacts {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string | undefined>>;
  /** A client's own span, as W3C's `traceparent` has it. */
  readonly traceparent: string | null;
}

interface Operation {
  readonly traceId: string;
  readonly spanId: string;
  steps: number;
}

export interface TracerDeps {
  readonly onSpan: (span: Span) => void;
}

export class Tracer implements Disposable {
  readonly #deps: TracerDeps;
  readonly #present = new AsyncLocalStorage<Operation>();
  /** When each step began, by its number. */
  readonly #begun = new Map<number, bigint>();

  constructor(deps: TracerDeps) {
    this.#deps = deps;
    subscribe(STEP_CHANNEL, this.#onStep);
  }

  async operation<T>({ name, attributes, traceparent }: OperationFacts, work: () => Promise<T>): Promise<T> {
    const client = parentOf(traceparent);
    const operation = { traceId: client?.traceId ?? newHex(16), spanId: newHex(8), steps: 0 };
    const startNs = nowNs();
    const end = (error: string | undefined): void => {
      const known = Object.entries(attributes).filter((pair): pair is [string, string] => pair[1] !== undefined);
      const { traceId, spanId } = operation;
      this.#deps.onSpan({
        traceId,
        spanId,
        parentSpanId: client?.spanId,
        name,
        isOperation: true,
        startNs,
        endNs: nowNs(),
        attributes: Object.fromEntries(known),
        error,
      });
    };
    try {
      const result = await this.#present.run(operation, work);
      end(undefined);
      return result;
    } catch (thrown) {
      end(BelljarError.from(thrown).reason);
      throw thrown;
    }
  }

  [Symbol.dispose](): void {
    unsubscribe(STEP_CHANNEL, this.#onStep);
    this.#begun.clear();
  }

  readonly #onStep = (message: unknown): void => {
    const operation = this.#present.getStore();
    if (operation === undefined || !isStep(message)) return;
    const { kind, name, phase, number } = message;
    if (phase === "before") {
      operation.steps += 1;
      if (operation.steps <= traceLimits.stepsMax) this.#begun.set(number, nowNs());
      return;
    }
    const startNs = this.#begun.get(number);
    if (startNs === undefined) return;
    this.#begun.delete(number);
    this.#deps.onSpan({
      traceId: operation.traceId,
      spanId: newHex(8),
      parentSpanId: operation.spanId,
      name: `${kind} ${name}`,
      isOperation: false,
      startNs,
      endNs: nowNs(),
      attributes: { "belljar.step": kind },
      error: undefined,
    });
  };
}

/** The channel is ours; what others might publish on it is passed over. */
function isStep(message: unknown): message is Step {
  return typeof message === "object" && message !== null && "phase" in message && "number" in message;
}

function parentOf(traceparent: string | null): { readonly traceId: string; readonly spanId: string } | undefined {
  const match = /^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$/.exec(traceparent ?? "");
  return match === null ? undefined : { traceId: match[1] ?? "", spanId: match[2] ?? "" };
}

function newHex(bytes: number): string {
  return randomBytes(bytes).toString("hex");
}

/** Since the epoch, and finer than milliseconds. */
function nowNs(): bigint {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
}
