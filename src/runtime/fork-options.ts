/** How many forks there are to be, and what each is called: checked before anything is done to the source. */
import { BelljarError, checkName, checkpointLimits } from "../base/index.ts";
import type { ForkOptions } from "./interface.ts";

export interface Forks {
  /** One for each fork; undefined where its id stands in. */
  readonly names: readonly (string | undefined)[];
  readonly keepExec: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Stands for a fork's number, from 1. */
const NUMBER = "{n}";

/** @throws BelljarError `INVALID_ARGUMENT` */
export function settleForkOptions(options: ForkOptions | number): Forks {
  const { count = 1, name, keepExec = false, signal } = typeof options === "number" ? { count: options } : options;
  const max = checkpointLimits.forksMax;
  if (!Number.isInteger(count) || count < 1 || count > max) {
    throw new BelljarError("INVALID_ARGUMENT", `${count} is no number of forks`, {
      facts: { max },
      remedy: `Ask for 1 to ${max} at once.`,
    });
  }
  if (name !== undefined && count > 1 && !name.includes(NUMBER)) {
    throw new BelljarError(
      "INVALID_ARGUMENT",
      `${count} forks cannot all be called ${JSON.stringify(name.slice(0, 80))}`,
      {
        remedy: `Put ${NUMBER} into the name, which becomes 1 to ${count}.`,
      },
    );
  }
  const names = Array.from({ length: count }, (_, index) =>
    name === undefined ? undefined : checkName(name.replaceAll(NUMBER, String(index + 1)), "sandbox"),
  );
  return { names, keepExec, signal };
}
