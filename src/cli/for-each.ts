/** The same for each of several names. */
import { BelljarError } from "../base/index.ts";
import type { Output } from "./output.ts";

/**
 * All of them, whatever becomes of the others; each failure is told once the last one has had its turn. Whoever interrupts means
 * those that wait, too.
 * @throws BelljarError the last failure
 */
export async function forEachName(
  names: readonly string[],
  output: Output,
  work: (name: string) => Promise<void>,
): Promise<void> {
  const failures: BelljarError[] = [];
  for (const name of names) {
    try {
      await work(name);
    } catch (thrown) {
      const error = BelljarError.from(thrown);
      failures.push(error);
      if (error.reason === "CANCELLED") break;
    }
  }
  const last = failures.pop();
  for (const error of failures) output.error(error);
  if (last !== undefined) throw last;
}
