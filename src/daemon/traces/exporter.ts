/**
 * Spans to a collector: OTLP over HTTP as JSON, in batches. A collector that does not answer costs spans, never memory or time of an
 * operation.
 */
import { type Log, messageChain, traceLimits, VERSION } from "../../base/index.ts";
import type { Span } from "./tracer.ts";

export interface ExporterDeps {
  /** Of a collector, such as `http://localhost:4318`; `/v1/traces` is added. */
  readonly endpoint: string;
  readonly log: Log;
}

const KIND_INTERNAL = 1;
const KIND_SERVER = 2;
const STATUS_ERROR = 2;

export class SpanExporter {
  readonly #deps: ExporterDeps;
  readonly #waiting: Span[] = [];
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();
  #hasFailed = false;

  constructor(deps: ExporterDeps) {
    this.#deps = deps;
  }

  add(span: Span): void {
    if (this.#waiting.length >= traceLimits.waitingMax) this.#waiting.shift();
    this.#waiting.push(span);
    this.#timer ??= setTimeout(() => void this.#flush(), traceLimits.flushIntervalMs);
  }

  /** What is waiting is sent, or given up. */
  async close(): Promise<void> {
    await this.#flush();
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#sending = this.#sending.then(() => this.#send(this.#waiting.splice(0)));
    return this.#sending;
  }

  async #send(spans: readonly Span[]): Promise<void> {
    if (spans.length === 0) return;
    const url = `${this.#deps.endpoint.replace(/\/$/, "")}/v1/traces`;
    try {
      const response = await fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(toOtlp(spans)),
        signal: AbortSignal.timeout(traceLimits.sendTimeoutMs),
      });
      await response.body?.cancel();
      if (response.ok) this.#hasFailed = false;
      else this.#fail(url, `HTTP status ${response.status}`);
    } catch (error) {
      this.#fail(url, messageChain(error).join(": "));
    }
  }

  /** Said once until it works again. */
  #fail(url: string, cause: string): void {
    if (!this.#hasFailed) this.#deps.log.warn("traces could not be sent", { url, cause });
    this.#hasFailed = true;
  }
}

function toOtlp(spans: readonly Span[]): unknown {
  return {
    resourceSpans: [
      {
        resource: { attributes: toAttributes({ "service.name": "belljard", "service.version": VERSION }) },
        scopeSpans: [{ scope: { name: "belljar", version: VERSION }, spans: spans.map(toOtlpSpan) }],
      },
    ],
  };
}

function toOtlpSpan({
  traceId,
  spanId,
  parentSpanId,
  name,
  isOperation,
  startNs,
  endNs,
  attributes,
  error,
}: Span): unknown {
  return {
    traceId,
    spanId,
    parentSpanId: parentSpanId ?? "",
    name,
    kind: isOperation ? KIND_SERVER : KIND_INTERNAL,
    startTimeUnixNano: String(startNs),
    endTimeUnixNano: String(endNs),
    attributes: toAttributes(attributes),
    status: error === undefined ? {} : { code: STATUS_ERROR, message: error },
  };
}

function toAttributes(attributes: Readonly<Record<string, string>>): unknown[] {
  return Object.entries(attributes).map(([key, stringValue]) => ({ key, value: { stringValue } }));
}
