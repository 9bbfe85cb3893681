/** Figures that are measured again and again: every second on a terminal, in place; elsewhere as often as was asked for. */
import { setTimeout as sleep } from "node:timers/promises";

const INTERVAL_MS = 1000;

/** Each round comes with the one before: shares of a CPU are differences. */
export async function* measureOften<T>(
  measure: () => Promise<T>,
  forever: boolean,
  signal: AbortSignal,
): AsyncGenerator<readonly [T, T]> {
  let before = await measure();
  do {
    await sleep(INTERVAL_MS, undefined, { signal });
    const now = await measure();
    yield [before, now];
    before = now;
  } while (forever);
}

/** What comes next stands where the round before stood. */
export function beginRound(stdout: NodeJS.WriteStream, json: boolean): void {
  if (stdout.isTTY && !json) stdout.write("\u001b[H\u001b[J");
}
