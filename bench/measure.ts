/** Repeats a measurement and sums it up: median, 95th percentile, n. */

export const units = ["ms", "MB", "MB/s", "IOPS", "1/s", "x"] as const;

export interface Measurement {
  readonly name: string;
  readonly unit: (typeof units)[number];
  readonly values: readonly number[];
}

export interface Summary {
  readonly name: string;
  readonly unit: string;
  readonly n: number;
  readonly median: number;
  readonly p95: number;
  readonly min: number;
  readonly max: number;
}

/** @throws Error when nothing was measured: what it waits for has another name by now, perhaps. */
export function checkFigures({ name, values }: Measurement): void {
  if (values.length === 0 || values.some(Number.isNaN)) throw new Error(`${name}: there is no figure`);
}

/** Value below which a share of the sorted values lies, by the nearest-rank rule. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(share * sorted.length));
  return sorted[rank - 1] ?? Number.NaN;
}

export function summarise({ name, unit, values }: Measurement): Summary {
  return {
    name,
    unit,
    n: values.length,
    median: round(percentile(values, 0.5)),
    p95: round(percentile(values, 0.95)),
    min: round(Math.min(...values)),
    max: round(Math.max(...values)),
  };
}

function round(value: number): number {
  return value < 10 ? Math.round(value * 100) / 100 : Math.round(value * 10) / 10;
}

/** Milliseconds that `work` takes. */
export async function time(work: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

export async function repeat(n: number, work: () => Promise<number>): Promise<number[]> {
  const values: number[] = [];
  for (let i = 0; i < n; i += 1) values.push(await work());
  return values;
}
