/**
 * Counters, gauges and histograms in Prometheus' text format, version 0.0.4; docs/decisions/metrics.md says why these are our own.
 * Labels come from closed lists (methods of the API, reasons, states), so the number of series has a bound.
 */

export type Labels = Readonly<Record<string, string>>;

/** Written out at every scrape. */
export interface Metric {
  render(): string;
}

/** Upper bounds in seconds: from a call that answers from memory to a boot on a slow host. */
const BUCKETS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

interface Series {
  readonly labels: Labels;
  value: number;
}

export class Counter implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #series = new Map<string, Series>();

  constructor(name: string, help: string) {
    this.#name = name;
    this.#help = help;
  }

  add(labels: Labels, count = 1): void {
    const key = renderLabels(labels);
    const series = this.#series.get(key) ?? { labels, value: 0 };
    series.value += count;
    this.#series.set(key, series);
  }

  render(): string {
    return renderFamily(this.#name, this.#help, "counter", [...this.#series.values()]);
  }
}

interface Observations {
  readonly labels: Labels;
  /** Of each bucket alone; the last one has no upper bound. */
  readonly counts: number[];
  sum: number;
}

export class Histogram implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #series = new Map<string, Observations>();

  constructor(name: string, help: string) {
    this.#name = name;
    this.#help = help;
  }

  observe(labels: Labels, seconds: number): void {
    const key = renderLabels(labels);
    const series = this.#series.get(key) ?? { labels, counts: Array(BUCKETS_S.length + 1).fill(0), sum: 0 };
    this.#series.set(key, series);
    const found = BUCKETS_S.findIndex((bound) => seconds <= bound);
    const bucket = found === -1 ? BUCKETS_S.length : found;
    series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
    series.sum += seconds;
  }

  render(): string {
    const lines = [`# HELP ${this.#name} ${this.#help}`, `# TYPE ${this.#name} histogram`];
    for (const { labels, counts, sum } of this.#series.values()) {
      let total = 0;
      for (const [index, count] of counts.entries()) {
        total += count;
        const le = BUCKETS_S[index];
        lines.push(
          `${this.#name}_bucket${renderLabels({ ...labels, le: le === undefined ? "+Inf" : String(le) })} ${total}`,
        );
      }
      lines.push(
        `${this.#name}_sum${renderLabels(labels)} ${sum}`,
        `${this.#name}_count${renderLabels(labels)} ${total}`,
      );
    }
    return `${lines.join("\n")}\n`;
  }
}

/** Values that are looked up when they are asked for. */
export function renderGauge(
  name: string,
  help: string,
  values: readonly { readonly labels?: Labels; readonly value: number }[],
): string {
  return renderFamily(
    name,
    help,
    "gauge",
    values.map(({ labels = {}, value }) => ({ labels, value })),
  );
}

function renderFamily(name: string, help: string, type: string, series: readonly Series[]): string {
  const lines = series.map(({ labels, value }) => `${name}${renderLabels(labels)} ${value}`);
  return `${[`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines].join("\n")}\n`;
}

function renderLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeValue(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeValue(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
