/** What was done for whom: what has succeeded must be there once, what has failed once or not at all, and nothing else. */
import { type BelljarError, messageChain } from "../../src/base/index.ts";

export class Ledger {
  /** By sandbox: words that `exec` has written into its journal. */
  readonly #done = new Map<string, Set<string>>();
  readonly #unsure = new Map<string, Set<string>>();
  readonly violations: string[] = [];
  /** Operations by name. */
  readonly succeeded = new Map<string, number>();
  /** By name and reason. */
  readonly failed = new Map<string, number>();
  /** Of each of those the first: where, when, and what was told. */
  readonly examples = new Map<string, string>();

  written(sandbox: string, word: string): void {
    setOf(this.#done, sandbox).add(word);
    setOf(this.#unsure, sandbox).delete(word);
  }

  /** It may have been written: said before it is tried. */
  mayBeWritten(sandbox: string, word: string): void {
    setOf(this.#unsure, sandbox).add(word);
  }

  /** Words that are in the journal by now. */
  known(sandbox: string): readonly string[] {
    return [...setOf(this.#done, sandbox)];
  }

  /** @param words the journal, from its beginning */
  checkJournal(sandbox: string, words: readonly string[]): void {
    const counts = new Map<string, number>();
    for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
    for (const [word, count] of counts) {
      if (count > 1) this.violate(`${word} was done ${count} times in ${sandbox}`);
      const isKnown = setOf(this.#done, sandbox).has(word) || setOf(this.#unsure, sandbox).has(word);
      if (!isKnown) this.violate(`${word} was done in ${sandbox}, and nobody had asked for it`);
    }
    for (const word of setOf(this.#done, sandbox)) {
      if (!counts.has(word)) this.violate(`${word} had succeeded in ${sandbox}, and is lost`);
    }
  }

  violate(what: string): void {
    this.violations.push(what);
  }

  count(operation: string, sandbox: string, error?: BelljarError): void {
    const [counts, key] =
      error === undefined ? [this.succeeded, operation] : [this.failed, `${operation} ${error.reason}`];
    counts.set(key, (counts.get(key) ?? 0) + 1);
    if (error === undefined || this.examples.has(key)) return;
    this.examples.set(key, `${new Date().toISOString()} ${sandbox}: ${messageChain(error).join(": ")}`);
  }
}

function setOf(map: Map<string, Set<string>>, key: string): Set<string> {
  const found = map.get(key) ?? new Set();
  map.set(key, found);
  return found;
}
