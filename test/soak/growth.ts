/** Whether what an owner uses grows: the end of a run beside its beginning. */

export interface Sample {
  readonly residentBytes: number;
  readonly heapBytes: number;
  /** Buffers outside of the heap. */
  readonly externalBytes: number;
  readonly descriptors: number;
  /** Timers, sockets, requests under way: what keeps the event loop busy. */
  readonly resources: number;
  readonly processes: number;
  readonly files: number;
  readonly recoveryMs: number;
}

/** By how much the median of the last rounds may be above that of the first ones; caches and compiled code settle early. */
const allowed: Readonly<Record<Exclude<keyof Sample, "recoveryMs">, number>> = {
  residentBytes: 24 * 1024 * 1024,
  heapBytes: 4 * 1024 * 1024,
  externalBytes: 4 * 1024 * 1024,
  descriptors: 2,
  resources: 2,
  // Other things of the host come and go as well.
  processes: 20,
  files: 0,
};

/** Rounds at the beginning that do not count. */
const WARM_UP_PART = 0.1;

export interface Growth {
  readonly text: string;
  readonly isTooMuch: boolean;
}

export function growth(samples: readonly Sample[]): Growth[] {
  const settled = samples.slice(Math.ceil(samples.length * WARM_UP_PART));
  const part = Math.max(1, Math.floor(settled.length / 3));
  if (settled.length === 0) return [];
  return (Object.keys(allowed) as (keyof typeof allowed)[]).map((name) => {
    const first = median(settled.slice(0, part).map((sample) => sample[name]));
    const last = median(settled.slice(-part).map((sample) => sample[name]));
    return {
      text: `${name}: ${first} in the first rounds, ${last} in the last`,
      isTooMuch: last - first > allowed[name],
    };
  });
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
