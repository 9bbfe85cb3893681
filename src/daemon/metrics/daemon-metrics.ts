/**
 * What the daemon tells of itself and its sandboxes. Latencies are those of the API's methods, so that whatever becomes a method
 * (a checkpoint, a fork) is measured without a line here.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { type ErrorReason, shownStates, VERSION } from "../../base/index.ts";
import type { Sandboxes } from "../../runtime/index.ts";
import { Counter, Histogram, renderGauge } from "./registry.ts";
import { VmmMemoryCache } from "./vmm-memory.ts";

/** Of the text format, as Prometheus wants to be told. */
export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

export interface MetricsDeps {
  readonly sandboxes: Pick<Sandboxes, "list">;
  readonly connections: () => number;
  readonly callsUnderWay: () => number;
}

/** How one call ended. */
export interface CallOutcome {
  /** Of the API, such as `CreateSandbox`. */
  readonly method: string;
  readonly reason: ErrorReason | undefined;
  /** Of calls that do something; those that wait for something else to happen, and streams, have none. */
  readonly seconds: number | undefined;
}

const LOOP_RESOLUTION_MS = 10;
const QUANTILES = [0.5, 0.9, 0.99] as const;

/** Node counts the whole interval between two looks, in nanoseconds. */
function delayS(intervalNs: number): number {
  return Math.max(0, intervalNs / 1e9 - LOOP_RESOLUTION_MS / 1000);
}

export class DaemonMetrics implements Disposable {
  readonly #startedAtS = Date.now() / 1000;
  readonly #calls = new Counter("belljar_calls_total", "Calls of the API that have ended, by method.");
  readonly #errors = new Counter("belljar_errors_total", "Calls that failed, by method and reason.");
  readonly #durations = new Histogram(
    "belljar_call_duration_seconds",
    "How long calls took: create, start, exec (SpawnProcess), stop, ...",
  );
  readonly #memory = new VmmMemoryCache();
  readonly #loop = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });

  constructor() {
    this.#loop.enable();
  }

  record({ method, reason, seconds }: CallOutcome): void {
    this.#calls.add({ method });
    if (reason !== undefined) this.#errors.add({ method, reason });
    else if (seconds !== undefined) this.#durations.observe({ method }, seconds);
  }

  /** All of them as text. Delays of the event loop are those since the last time. */
  async render({ sandboxes, connections, callsUnderWay }: MetricsDeps): Promise<string> {
    const infos = await sandboxes.list();
    const count = (state: string): number =>
      infos.filter((info) => (info.problem === undefined ? info.state : "unreadable") === state).length;
    const memory = await this.#memory.read(infos.flatMap(({ vmm }) => (vmm === undefined ? [] : [vmm.pid])));
    const { rss, heapUsed } = process.memoryUsage();
    const cpu = process.cpuUsage();
    const delays = QUANTILES.map((quantile) => ({
      labels: { quantile: String(quantile) },
      value: delayS(this.#loop.percentile(quantile * 100)),
    }));
    const maxDelay = { labels: { quantile: "1" }, value: delayS(this.#loop.max) };
    this.#loop.reset();
    return [
      renderGauge("belljar_info", "Version of the daemon.", [{ labels: { version: VERSION }, value: 1 }]),
      renderGauge(
        "belljar_sandboxes",
        "Sandboxes by state.",
        [...shownStates, "unreadable"].map((state) => ({ labels: { state }, value: count(state) })),
      ),
      renderGauge("belljar_vmm_memory_bytes", "Memory of all VMs on the host; shared once for each VM that maps it.", [
        { labels: { kind: "private" }, value: memory.privateBytes },
        { labels: { kind: "shared" }, value: memory.sharedBytes },
      ]),
      this.#calls.render(),
      this.#errors.render(),
      this.#durations.render(),
      renderGauge("belljar_calls_under_way", "Calls of the API that have not ended.", [{ value: callsUnderWay() }]),
      renderGauge("belljar_connections", "Clients.", [{ value: connections() }]),
      renderGauge("belljar_daemon_start_time_seconds", "When the daemon started.", [{ value: this.#startedAtS }]),
      renderGauge("belljar_daemon_resident_memory_bytes", "Resident memory of the daemon.", [{ value: rss }]),
      renderGauge("belljar_daemon_heap_used_bytes", "Memory in use by JavaScript.", [{ value: heapUsed }]),
      renderGauge("belljar_daemon_cpu_seconds", "CPU time of the daemon so far.", [
        { value: (cpu.user + cpu.system) / 1e6 },
      ]),
      renderGauge("belljar_daemon_event_loop_delay_seconds", "By how much timers were late since the last scrape.", [
        ...delays,
        maxDelay,
      ]),
    ].join("");
  }

  [Symbol.dispose](): void {
    this.#loop.disable();
  }
}
