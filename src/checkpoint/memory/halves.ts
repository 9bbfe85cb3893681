/** Memory in two halves, so that two threads move it: by the pages that there are to move, whose places are known before. */
import type { MemoryBlock } from "../../hypervisor/interface.ts";
import { PAGE_BYTES, type PageRuns } from "./page-runs.ts";

export type Place = Pick<MemoryBlock, "address" | "sizeBytes">;

/** Of each block the places before the middle and after it; either may be of no size. */
export function halvePlaces(places: readonly Place[], runs: readonly PageRuns[]): readonly [Place[], Place[]] {
  const { index: at, page } = middleOf(runs);
  const before: Place[] = [];
  const after: Place[] = [];
  for (const [index, { address, sizeBytes }] of places.entries()) {
    const middle = index < at ? sizeBytes : index > at ? 0 : Math.min(sizeBytes, page * PAGE_BYTES);
    before.push({ address, sizeBytes: middle });
    after.push({ address: address + middle, sizeBytes: sizeBytes - middle });
  }
  return [before, after];
}

/** What was found in each half of such places, as if it had been looked for in the whole. */
export function joinRuns(
  [before, after]: readonly [readonly PageRuns[], readonly PageRuns[]],
  halves: readonly [readonly Place[], readonly Place[]],
): PageRuns[] {
  return before.map((first, index) => {
    const skipped = (halves[0][index]?.sizeBytes ?? 0) / PAGE_BYTES;
    const second = after[index] ?? NONE;
    const joined = new Uint32Array(first.length + second.length);
    joined.set(first);
    for (const [at, value] of second.entries()) joined[first.length + at] = at % 2 === 0 ? value + skipped : value;
    return joined;
  });
}

/** Of each block the runs before the middle and after it. */
export function halveRuns(runs: readonly PageRuns[]): readonly [PageRuns[], PageRuns[]] {
  const { index: at, page } = middleOf(runs);
  const before: PageRuns[] = [];
  const after: PageRuns[] = [];
  for (const [index, each] of runs.entries()) {
    if (index !== at) {
      before.push(index < at ? each : NONE);
      after.push(index < at ? NONE : each);
      continue;
    }
    const [first, second]: [number[], number[]] = [[], []];
    for (let run = 0; run < each.length; run += 2) {
      const [start = 0, pages = 0] = each.subarray(run, run + 2);
      const here = Math.min(pages, Math.max(0, page - start));
      if (here > 0) first.push(start, here);
      if (here < pages) second.push(start + here, pages - here);
    }
    before.push(Uint32Array.from(first));
    after.push(Uint32Array.from(second));
  }
  return [before, after];
}

/** The block and its page before which half of the pages are. */
function middleOf(runs: readonly PageRuns[]): { readonly index: number; readonly page: number } {
  let left = 0;
  for (const each of runs) for (let at = 1; at < each.length; at += 2) left += each[at] ?? 0;
  left = Math.ceil(left / 2);
  for (const [index, each] of runs.entries()) {
    for (let at = 0; at < each.length; at += 2) {
      const [start = 0, pages = 0] = each.subarray(at, at + 2);
      if (pages >= left) return { index, page: start + left };
      left -= pages;
    }
  }
  return { index: runs.length, page: 0 };
}

const NONE = new Uint32Array(0);
