/** Random numbers that a seed repeats, for tests and fuzzers. */

export interface Random {
  /** An integer from 0 to `count` - 1. */
  below(count: number): number;
  pick<T>(items: readonly [T, ...T[]]): T;
}

/** mulberry32: 32 bits of state, enough to pick faults and mutations. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const below = (count: number): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * count);
  };
  return { below, pick: (items) => items[below(items.length)] ?? items[0] };
}
