import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "../../../test/support/random.ts";
import { halvePlaces, halveRuns, joinRuns, type Place } from "./halves.ts";
import { PAGE_BYTES, type PageRuns } from "./page-runs.ts";

const random = seededRandom(7);

/** Of blocks of so many pages, some of which are there. */
function someRuns(pages: readonly number[]): PageRuns[] {
  return pages.map((count) => {
    const runs: number[] = [];
    for (let at = random.below(4); at < count; at += 1 + random.below(9)) {
      const length = Math.min(count - at, 1 + random.below(12));
      runs.push(at, length);
      at += length;
    }
    return Uint32Array.from(runs);
  });
}

/** Each page by itself. */
function pagesOf(runs: readonly PageRuns[]): string[] {
  return runs.flatMap((each, block) => {
    const pages: string[] = [];
    for (let at = 0; at < each.length; at += 2) {
      for (let page = 0; page < (each[at + 1] ?? 0); page += 1) pages.push(`${block}:${(each[at] ?? 0) + page}`);
    }
    return pages;
  });
}

/** What a look at such places finds of those pages. */
function lookedFor(runs: readonly PageRuns[], places: readonly Place[], whole: readonly Place[]): PageRuns[] {
  return runs.map((each, index) => {
    const from = ((places[index]?.address ?? 0) - (whole[index]?.address ?? 0)) / PAGE_BYTES;
    const to = from + (places[index]?.sizeBytes ?? 0) / PAGE_BYTES;
    const found: number[] = [];
    for (let at = 0; at < each.length; at += 2) {
      const [start = 0, pages = 0] = each.subarray(at, at + 2);
      const [first, end] = [Math.max(from, start), Math.min(to, start + pages)];
      if (first < end) found.push(first - from, end - first);
    }
    return Uint32Array.from(found);
  });
}

test("each page is in one half, in order, and the halves are of one size", () => {
  for (const pages of [[], [0], [1], [2], [300], [300, 200], [0, 500], [500, 0, 3], ...Array(50).fill([90, 40])]) {
    const runs = someRuns(pages);
    const [before, after] = halveRuns(runs);
    const [first, second] = [pagesOf(before), pagesOf(after)];
    assert.deepEqual([before.length, after.length], [runs.length, runs.length]);
    assert.deepEqual([...first, ...second], pagesOf(runs));
    assert.ok(first.length - second.length === 0 || first.length - second.length === 1);
  }
});

test("what is looked for in the halves of places is what is there, also what has come since", () => {
  for (let round = 0; round < 50; round += 1) {
    const pages = [1 + random.below(300), random.below(100), 40];
    const whole = pages.map((count, index) => ({ address: (index + 1) * 2 ** 32, sizeBytes: count * PAGE_BYTES }));
    const [then, now] = [someRuns(pages), someRuns(pages)];
    const halves = halvePlaces(whole, then);
    const found = [lookedFor(now, halves[0], whole), lookedFor(now, halves[1], whole)] as const;
    assert.deepEqual(pagesOf(joinRuns(found, halves)), pagesOf(now));
    const [first, second] = [lookedFor(then, halves[0], whole), lookedFor(then, halves[1], whole)].map(pagesOf);
    assert.ok([0, 1].includes((first ?? []).length - (second ?? []).length));
  }
});
